// Command protodeps writes the third-party proto files that this project imports to a
// directory. It prints them from the descriptors in the Go modules of the service, so that
// generated code matches the versions used at run time.
//
//	protodeps DIR
//
// The previous content of the directory is removed.
package main

import (
	"fmt"
	"os"

	// Imported for the descriptors that they register.
	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/jhump/protoreflect/v2/protoprint"
	_ "google.golang.org/genproto/googleapis/api/annotations"
	_ "google.golang.org/genproto/googleapis/rpc/code"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	_ "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// imports are the importable files in addition to google/protobuf/*, which buf includes.
var imports = []string{
	"buf/validate/validate.proto",
	"google/api/annotations.proto",
	"google/api/field_behavior.proto",
	"google/api/http.proto",
	"google/rpc/code.proto",
	"google/rpc/error_details.proto",
	"google/rpc/status.proto",
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: protodeps DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "protodeps:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	files := make([]protoreflect.FileDescriptor, 0, len(imports))
	for _, path := range imports {
		file, err := protoregistry.GlobalFiles.FindFileByPath(path)
		if err != nil {
			return fmt.Errorf("find %s: %w", path, err)
		}
		files = append(files, file)
	}
	// Remove files that are no longer in imports.
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear directory: %w", err)
	}
	// In an extension file a relative name could resolve to the file's own package.
	printer := protoprint.Printer{ForceFullyQualifiedNames: true}
	if err := printer.PrintProtosToFileSystem(files, dir); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
