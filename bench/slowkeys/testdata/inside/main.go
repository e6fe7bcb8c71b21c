package main

import (
	"fmt"

	"github.com/chancery-pki/chancery/internal/cert"
)

func main() { fmt.Println(cert.NewSerial()) }
