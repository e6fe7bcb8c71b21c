module github.com/chancery-pki/chancery/mtls

go 1.26.0

toolchain go1.27.4

require golang.org/x/crypto v0.58.0
