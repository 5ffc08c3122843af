package rest_test

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// A random message that is sent to its route, in path, query and body, is received unchanged.
func TestMessagesAreReceivedUnchanged(t *testing.T) {
	t.Parallel()
	methods := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods()
	for i := range methods.Len() {
		method := methods.Get(i)
		rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
		if rule == nil {
			continue
		}
		t.Run(string(method.Name()), func(t *testing.T) {
			f := &fake{}
			h := newHandler(t, f)
			rapid.Check(t, func(r *rapid.T) {
				message := drawMessage(r, method.Input())
				sent := encodeForRoute(r, rule, message)
				w := serve(t, h, sent)
				received := f.receivedMessages()
				if w.Code != http.StatusOK || len(received) != 1 || !proto.Equal(received[0], message.Interface()) {
					r.Fatalf("%s %s %s: got %d %s, received %v, want %v", sent.method, sent.path, sent.body, w.Code, w.Body, received, message)
				}
			})
		})
	}
}

// encodeForRoute returns the request for a message. It sets the field of the body, and an unset update mask.
func encodeForRoute(r *rapid.T, rule *annotations.HttpRule, message protoreflect.Message) request {
	fields := message.Descriptor().Fields()
	sent := request{}
	for verb, path := range map[string]string{
		"GET": rule.GetGet(), "POST": rule.GetPost(), "PUT": rule.GetPut(), "PATCH": rule.GetPatch(), "DELETE": rule.GetDelete(),
	} {
		if path != "" {
			sent.method, sent.path = verb, path
		}
	}
	id := fields.ByName("user_id")
	inPath := strings.Contains(sent.path, "{user_id}")
	if inPath {
		sent.path = strings.Replace(sent.path, "{user_id}", strconv.FormatInt(message.Get(id).Int(), 10), 1)
	}
	switch rule.GetBody() {
	case "*":
		sent.body = encodeJSON(r, message)
		return sent
	case "":
	default:
		body := fields.ByName(protoreflect.Name(rule.GetBody()))
		sent.body = encodeJSON(r, message.Mutable(body).Message())
		if mask := fields.ByName("update_mask"); !message.Has(mask) { // the default is another one
			message.Set(mask, protoreflect.ValueOfMessage((&fieldmaskpb.FieldMask{Paths: []string{"email"}}).ProtoReflect()))
		}
	}
	query := url.Values{}
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if inPath && field == id || string(field.Name()) == rule.GetBody() {
			return true
		}
		name := rapid.SampledFrom([]string{field.JSONName(), string(field.Name())}).Draw(r, "name")
		switch {
		case field.Message() != nil:
			mask, ok := value.Message().Interface().(*fieldmaskpb.FieldMask)
			if !ok {
				r.Fatalf("field %s cannot be in a query", field.FullName())
			}
			query[name+".paths"] = mask.GetPaths()
		case field.IsList():
			for i := range value.List().Len() {
				query.Add(name, value.List().Get(i).String())
			}
		case field.Enum() != nil:
			query.Set(name, string(field.Enum().Values().ByNumber(value.Enum()).Name()))
		default:
			query.Set(name, value.String())
		}
		return true
	})
	sent.path += "?" + query.Encode()
	return sent
}

func encodeJSON(r *rapid.T, message protoreflect.Message) string {
	options := protojson.MarshalOptions{UseProtoNames: rapid.Bool().Draw(r, "proto names"), UseEnumNumbers: rapid.Bool().Draw(r, "enum numbers")}
	text, err := options.Marshal(message.Interface())
	if err != nil {
		r.Fatal(err)
	}
	return string(text)
}

// drawMessage draws a message with any of its fields set.
func drawMessage(r *rapid.T, d protoreflect.MessageDescriptor) protoreflect.Message {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		r.Fatal(err)
	}
	message := kind.New()
	switch m := message.Interface().(type) {
	case *timestamppb.Timestamp:
		m.Seconds = rapid.Int64Range(-62135596800, 253402300799).Draw(r, "seconds")
		m.Nanos = rapid.Int32Range(0, 999_999_999).Draw(r, "nanos")
		return message
	case *fieldmaskpb.FieldMask:
		m.Paths = rapid.SliceOfN(rapid.SampledFrom([]string{"email", "created_at", "metadata", "metadata.a.b"}), 1, 3).Draw(r, "paths")
		return message
	}
	fields := d.Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if !rapid.Bool().Draw(r, string(field.Name())) {
			continue
		}
		switch {
		case field.IsMap():
			for range rapid.IntRange(1, 3).Draw(r, "entries") {
				message.Mutable(field).Map().Set(drawValue(r, field.MapKey()).MapKey(), drawValue(r, field.MapValue()))
			}
		case field.IsList():
			for range rapid.IntRange(1, 3).Draw(r, "elements") {
				message.Mutable(field).List().Append(drawValue(r, field))
			}
		default:
			message.Set(field, drawValue(r, field))
		}
	}
	return message
}

func drawValue(r *rapid.T, field protoreflect.FieldDescriptor) protoreflect.Value {
	name := string(field.Name())
	switch field.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(r, name))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(r, name))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.StringMatching(`[a-z "\\\n&=+%;/?#ä😀\x00]{0,8}`).Draw(r, name)) // a comma separates elements
	case protoreflect.EnumKind:
		values := field.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(rapid.IntRange(0, values.Len()-1).Draw(r, name)).Number())
	case protoreflect.MessageKind:
		return protoreflect.ValueOfMessage(drawMessage(r, field.Message()))
	default:
		r.Fatalf("field %s: kind %v is not drawn", field.FullName(), field.Kind())
		return protoreflect.Value{}
	}
}
