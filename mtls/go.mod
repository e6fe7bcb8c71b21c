module github.com/chancery-pki/chancery/mtls

go 1.26.0

toolchain go1.27.4
