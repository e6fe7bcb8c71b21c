package challenge

import (
	"context"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// YubiKey validates yubikey-01 or yubikey-02, as Type says (DESIGN section 6): an
// enrolled key in a YubiKey signs the challenge, bound to the account, to the
// type and to the URL, and the device attests the key.
type YubiKey struct {
	Type protocol.ChallengeType
	Devices
}

// Validate checks the response. A no is unauthorized, or malformed where the
// response can't be read.
func (y YubiKey) Validate(ctx context.Context, v protocol.Validation) (protocol.Evidence, error) {
	signature, p, err := yubikey.ParseResponse(v.Response)
	if err != nil {
		return protocol.Evidence{Type: v.Type}, no(protocol.Malformed, false, "%v", err)
	}
	message, err := yubikey.ResponseMessage(yubikey.NewChallenge(string(y.Type), v.Token), v.Thumbprint, string(y.Type), v.URL)
	if err != nil {
		return protocol.Evidence{Type: v.Type}, err // ours
	}
	return y.judge(ctx, v, presented{p.Statement, p.Device, func(public any) error {
		return yubikey.VerifyMessage(public, message, signature)
	}})
}

// Recheck asks again whether the device may have the name.
func (y YubiKey) Recheck(ctx context.Context, id protocol.Identifier, subject string) error {
	return y.recheck(ctx, y.Type, id, subject)
}
