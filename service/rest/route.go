package rest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// A route is an RPC bound to an HTTP method and path.
type route struct {
	rpc       protoreflect.MethodDescriptor
	procedure string // path of the RPC
	input     protoreflect.MessageType
	// body is the field that the body sets: wholeBody for the whole message, "" for a
	// request without a body.
	body string
	// variables are the fields that the path sets.
	variables []protoreflect.FieldDescriptor
}

// wholeBody is the value of body for the whole message.
const wholeBody = "*"

// A resource is a path with its methods.
type resource struct {
	segments []segment
	verb     string
	routes   map[string]*route       // by HTTP method
	streams  map[string]*streamRoute // by HTTP method
}

// A segment is a path segment: literal text, or a variable if text is empty.
type segment struct {
	text     string
	variable string
}

// resourcesOf returns the resources of the google.api.http annotations of a service.
func resourcesOf(service protoreflect.ServiceDescriptor) ([]*resource, error) {
	var resources []*resource
	for i := range service.Methods().Len() {
		rpc := service.Methods().Get(i)
		rule, ok := proto.GetExtension(rpc.Options(), annotations.E_Http).(*annotations.HttpRule)
		if !ok || rule.GetPattern() == nil {
			continue
		}
		for _, binding := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
			method, template := ruleTarget(binding)
			segments, verb, ok := parseTemplate(template)
			if !ok || method == "" {
				return nil, fmt.Errorf("%s: unsupported google.api.http annotation", rpc.FullName())
			}
			added, err := newRoute(rpc, segments, binding.GetBody())
			if err != nil {
				return nil, err
			}
			resources = withResource(resources, segments, verb)
			resourceAt(resources, segments, verb).routes[method] = added
		}
	}
	return resources, nil
}

func newRoute(rpc protoreflect.MethodDescriptor, segments []segment, body string) (*route, error) {
	input, err := protoregistry.GlobalTypes.FindMessageByName(rpc.Input().FullName())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rpc.FullName(), err)
	}
	procedure := "/" + string(rpc.Parent().FullName()) + "/" + string(rpc.Name())
	rt := &route{rpc: rpc, procedure: procedure, input: input, body: body}
	for _, s := range segments {
		if s.variable == "" {
			continue
		}
		field := rpc.Input().Fields().ByName(protoreflect.Name(s.variable))
		if field == nil {
			return nil, fmt.Errorf("%s: unknown field %s", rpc.FullName(), s.variable)
		}
		rt.variables = append(rt.variables, field)
	}
	return rt, nil
}

func resourceAt(resources []*resource, segments []segment, verb string) *resource {
	i := slices.IndexFunc(resources, func(res *resource) bool {
		return res.verb == verb && slices.Equal(res.segments, segments)
	})
	if i < 0 {
		return nil
	}
	return resources[i]
}

// withResource adds a resource at the path if there is none.
func withResource(resources []*resource, segments []segment, verb string) []*resource {
	if resourceAt(resources, segments, verb) != nil {
		return resources
	}
	return append(resources, &resource{
		segments: segments, verb: verb, routes: map[string]*route{}, streams: map[string]*streamRoute{},
	})
}

func ruleTarget(rule *annotations.HttpRule) (method, template string) {
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return http.MethodGet, pattern.Get
	case *annotations.HttpRule_Put:
		return http.MethodPut, pattern.Put
	case *annotations.HttpRule_Post:
		return http.MethodPost, pattern.Post
	case *annotations.HttpRule_Delete:
		return http.MethodDelete, pattern.Delete
	case *annotations.HttpRule_Patch:
		return http.MethodPatch, pattern.Patch
	default:
		return "", ""
	}
}

// parseTemplate parses a path template with literal segments and whole-segment variables, such
// as /api/v1/users/{user_id}:undelete.
func parseTemplate(template string) (segments []segment, verb string, ok bool) {
	path, found := strings.CutPrefix(template, "/")
	if !found {
		return nil, "", false
	}
	path, verb, _ = strings.Cut(path, ":")
	for text := range strings.SplitSeq(path, "/") {
		if inner, isVariable := strings.CutPrefix(text, "{"); isVariable {
			name, closed := strings.CutSuffix(inner, "}")
			if !closed || strings.ContainsAny(name, "{}=*.") {
				return nil, "", false
			}
			segments = append(segments, segment{variable: name})
			continue
		}
		if text == "" || strings.ContainsAny(text, "{}*") {
			return nil, "", false
		}
		segments = append(segments, segment{text: text})
	}
	return segments, verb, true
}

// find returns the resource at the request's path and the values of its variables, or nil.
func (h *handler) find(r *http.Request) (*resource, []string) {
	// An escaped slash is not a separator.
	if strings.Contains(strings.ToLower(r.URL.RawPath), "%2f") {
		return nil, nil
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/")
	if !ok {
		return nil, nil
	}
	parts := strings.Split(path, "/")
	last := &parts[len(parts)-1]
	head, verb, hasVerb := strings.Cut(*last, ":")
	if hasVerb && verb == "" {
		return nil, nil
	}
	*last = head
	for _, res := range h.resources {
		if values, ok := res.match(parts, verb); ok {
			return res, values
		}
	}
	return nil, nil
}

func (res *resource) match(parts []string, verb string) (values []string, ok bool) {
	if len(parts) != len(res.segments) || verb != res.verb {
		return nil, false
	}
	for i, s := range res.segments {
		switch {
		case s.variable == "" && s.text != parts[i], s.variable != "" && parts[i] == "":
			return nil, false
		case s.variable != "":
			values = append(values, parts[i])
		}
	}
	return values, true
}

func (res *resource) allow() string {
	methods := slices.Collect(maps.Keys(res.routes))
	if res.routes[http.MethodGet] != nil {
		methods = append(methods, http.MethodHead)
	}
	methods = slices.AppendSeq(methods, maps.Keys(res.streams))
	slices.Sort(methods)
	return strings.Join(slices.Compact(methods), ", ")
}
