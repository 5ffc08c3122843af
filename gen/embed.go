// Package gen holds what is generated from proto/: the messages, the RPC stubs and
// the OpenAPI document. This file alone is written by people.
package gen

import _ "embed"

//go:embed openapi/user.openapi.yaml
var openAPI string

// OpenAPI returns the OpenAPI 3.1 document of the REST routes, in YAML.
func OpenAPI() string { return openAPI }
