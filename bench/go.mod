module github.com/chancery-pki/chancery/bench

go 1.26.0

toolchain go1.27.4

require github.com/chancery-pki/chancery/mtls v0.0.0

// The client that drives every server is the library's own.
replace github.com/chancery-pki/chancery/mtls => ../mtls
