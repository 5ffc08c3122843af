// Command protodeps writes the proto files that this project imports from
// others into a folder, printed from the descriptors of the Go modules that the
// service is built with. So the definitions that code is generated against are
// those that run, and generation needs nothing but the Go modules.
//
//	protodeps FOLDER
//
// The folder is made anew: what stood in it before is gone afterwards.
package main

import (
	"fmt"
	"os"

	// For their descriptors, which each registers when it is loaded.
	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/jhump/protoreflect/v2/protoprint"
	_ "google.golang.org/genproto/googleapis/api/annotations"
	_ "google.golang.org/genproto/googleapis/rpc/code"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	_ "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// imports are the files that the project's proto may import beside
// google/protobuf/*, which buf has built in.
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
		fmt.Fprintln(os.Stderr, "usage: protodeps FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "protodeps:", err)
		os.Exit(1)
	}
}

func write(folder string) error {
	files := make([]protoreflect.FileDescriptor, 0, len(imports))
	for _, path := range imports {
		file, err := protoregistry.GlobalFiles.FindFileByPath(path)
		if err != nil {
			return fmt.Errorf("find %s: %w", path, err)
		}
		files = append(files, file)
	}
	// Otherwise a file that is no longer printed would go on being importable.
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("clear the folder: %w", err)
	}
	// Names in full, because a short name in an extension file can be taken for
	// one of its own package when it is parsed again.
	printer := protoprint.Printer{ForceFullyQualifiedNames: true}
	if err := printer.PrintProtosToFileSystem(files, folder); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
