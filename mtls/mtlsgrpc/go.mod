module github.com/chancery-pki/chancery/mtls/mtlsgrpc

go 1.26.0

toolchain go1.27.4

require (
	github.com/chancery-pki/chancery/mtls v0.0.0
	google.golang.org/grpc v1.85.0
)

require (
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

// The release step tags mtls first and drops this line.
replace github.com/chancery-pki/chancery/mtls => ../
