package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// maxResponse bounds the payload. Tokens have about 1 KiB.
const maxResponse = 16 << 10

const (
	extraPodName = "authentication.kubernetes.io/pod-name"
	extraPodUID  = "authentication.kubernetes.io/pod-uid"
)

// parseResponse returns the token in a response, "" where there is none.
// Unknown members are ignored (RFC 8555 section 7.5.1 leaves room for them).
func parseResponse(payload []byte) (token string, err error) {
	if len(payload) > maxResponse {
		return "", malformed("the challenge response is longer than %d bytes", maxResponse)
	}
	if len(payload) == 0 {
		return "", nil
	}
	var members map[string]any
	if json.Unmarshal(payload, &members) != nil || members == nil {
		return "", malformed("the challenge response must be {} or {\"serviceAccountToken\": \"…\"}")
	}
	member, there := members["serviceAccountToken"]
	if !there {
		return "", nil
	}
	token, ok := member.(string)
	if !ok || token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", malformed("serviceAccountToken must be the token as the kubelet wrote it")
	}
	return token, nil
}

// podOf asks the cluster which pod the token is bound to.
func (v *Verifier) podOf(ctx context.Context, token string) (subject, error) {
	status, err := v.api.review(ctx, token, v.audience)
	if err != nil {
		return subject{}, withoutToken(err, token)
	}
	switch {
	case !status.Authenticated:
		return subject{}, no(false, "the cluster %s doesn't accept the token: %s", v.cluster, v.tokenFault(status.Error))
	case !slices.Contains(status.Audiences, v.audience):
		return subject{}, no(false, "the cluster %s doesn't say that the token is for %q; project one with this audience", v.cluster, v.audience)
	}
	namespace, account, ok := serviceAccount(status.User.Username)
	if !ok {
		return subject{}, no(false, "the token is not a service account's")
	}
	name, named := only(status.User.Extra, extraPodName)
	uid, bound := only(status.User.Extra, extraPodUID)
	if !named || !bound {
		return subject{}, no(false, "the token is not bound to one pod; use a projected volume's, not a Secret's")
	}
	s := subject{v.cluster, namespace, name, uid, account}
	if !s.valid() {
		return subject{}, no(false, "the token names no pod that can be")
	}
	return s, nil
}

// tokenFault puts a TokenReview's error into our own words: what it says is
// for operators, and may be any authenticator's.
func (v *Verifier) tokenFault(said string) string {
	switch {
	case strings.Contains(said, "expired"):
		return "it has expired; read the file anew for each proof"
	case strings.Contains(said, "audience"):
		return "it is made for another audience; project one with \"" + v.audience + "\""
	case strings.Contains(said, "invalidated"):
		return "its pod or service account is gone"
	}
	return "it must be one of this cluster's, for audience \"" + v.audience + "\", of a pod that still is"
}

// serviceAccount takes a user's name apart, system:serviceaccount:NAMESPACE:NAME.
func serviceAccount(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, "system:serviceaccount:")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ":")
}

// only returns the value of an extra that there is exactly once.
func only(extra map[string]authenticationv1.ExtraValue, key string) (string, bool) {
	if v := extra[key]; len(v) == 1 {
		return v[0], true
	}
	return "", false
}

// withoutToken keeps the token out of the log, should the API repeat it.
func withoutToken(err error, token string) error {
	if strings.Contains(err.Error(), token) {
		return errors.New("create tokenreviews: failed, with an answer that repeats the token")
	}
	return err
}
