package reqinfo

import (
	"reflect"
	"strings"
	"unique"

	"connectrpc.com/connect"
)

// Form identifies streams of a method to which the same bytes are written for a message.
type Form = unique.Handle[string]

// NoForm is the Form of a stream that shares no bytes with others.
var NoForm Form

// SharedSends is how a stream sends a message whose bytes are known from another stream of its Form: what its layers do besides
// encoding it.
type SharedSends struct {
	Form    Form
	Check   func() error       // fails if the stream has ended; nil: none
	Counter interface{ Inc() } // of sent messages, one for all streams of the form; nil: none
}

// SharedLayer is a layer of a stream that can be left out when bytes are shared.
type SharedLayer interface {
	// Share records in sends what Send does besides passing on messages with the fields of message, and returns the next layer. It
	// returns nil if Send may change such messages, or must see them.
	Share(message any, sends *SharedSends) connect.StreamingHandlerConn
}

// SharedSendsOf returns how conn sends messages with the fields of message. Its form is NoForm if a layer is no SharedLayer.
func SharedSendsOf(conn connect.StreamingHandlerConn, message any) (sends SharedSends) {
	for {
		layer, ok := conn.(SharedLayer)
		if !ok {
			break
		}
		if conn = layer.Share(message, &sends); conn == nil {
			return SharedSends{}
		}
	}
	if own := reflect.TypeOf(conn); own.Kind() != reflect.Pointer || own.Elem().PkgPath() != reflect.TypeFor[connect.Error]().PkgPath() {
		return SharedSends{}
	}
	sends.Form = formOf(conn)
	return sends
}

// formOf returns the form of a conn of package connect: the protocol, the codec and the compression follow from the request.
func formOf(conn connect.StreamingHandlerConn) Form {
	header := conn.RequestHeader()
	form := []string{conn.Spec().Procedure, conn.Peer().Protocol}
	for _, name := range []string{
		"Content-Type", "Grpc-Encoding", "Grpc-Accept-Encoding", "Connect-Content-Encoding", "Connect-Accept-Encoding",
	} {
		form = append(form, header.Get(name))
	}
	return unique.Make(strings.Join(form, "\n"))
}
