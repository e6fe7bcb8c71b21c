// Package e2e_test runs ACME clients written by others against the server of
// this repository; package harness says how. One file per client.
package e2e_test

import (
	"testing"

	"github.com/chancery-pki/chancery/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
