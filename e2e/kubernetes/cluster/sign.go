package cluster

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TokenUntil is [Cluster.Token] with any end, for which the API server itself
// can't be asked: it is signed here, with the cluster's own key and the claims
// of KEP 1205. Only the jti is missing, which says nothing to a reviewer.
func (c *Cluster) TokenUntil(pod *corev1.Pod, audience string, end time.Time) string {
	c.t.Helper()
	begin := min(time.Now().Unix(), end.Unix()) - 60
	type object struct {
		Name string `json:"name"`
		UID  string `json:"uid,omitempty"`
	}
	account, err := c.Client.CoreV1().ServiceAccounts(pod.Namespace).Get(c.t.Context(), pod.Spec.ServiceAccountName, metav1.GetOptions{})
	c.check("the service account", err)
	return c.sign(map[string]any{
		"iss": Issuer, "aud": []string{audience}, "iat": begin, "nbf": begin, "exp": end.Unix(),
		"sub": "system:serviceaccount:" + pod.Namespace + ":" + account.Name,
		"kubernetes.io": map[string]any{
			"namespace":      pod.Namespace,
			"pod":            object{pod.Name, string(pod.UID)},
			"serviceaccount": object{account.Name, string(account.UID)},
		},
	})
}

// sign makes a JWS in compact form, ES256 (RFC 7518 section 3.4).
func (c *Cluster) sign(claims map[string]any) string {
	c.t.Helper()
	text, err := os.ReadFile(c.path("tokens.key"))
	c.check("the key of tokens", err)
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	c.check("the key of tokens", err)
	body, err := json.Marshal(claims)
	c.check("the claims", err)
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + b64(body)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key.(*ecdsa.PrivateKey), sum[:])
	c.check("signing", err)
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return signed + "." + b64(sig)
}
