package store

import "strconv"

// RevisionName names the number (see [Tx.NextNumber]) that rises with every
// revocation that a list must show: of the certificates of an issuing key (hex
// of its ID), in one shard of its lists or, as shard 0, all of them.
func RevisionName(issuerKeyID string, shard int) string {
	if shard == 0 {
		return "revoked/" + issuerKeyID
	}
	return "revoked/" + issuerKeyID + "/" + strconv.Itoa(shard)
}
