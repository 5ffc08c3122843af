// Package gen contains the code generated from proto/: messages, RPC stubs and the OpenAPI
// document. Only this file is hand-written.
package gen

import _ "embed"

//go:embed openapi/user.openapi.yaml
var openAPI string

// OpenAPI returns the OpenAPI 3.1 document of the REST routes, in YAML.
func OpenAPI() string { return openAPI }
