package rest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// A route is what one HTTP method means at one path.
type route struct {
	rpc   protoreflect.MethodDescriptor
	input protoreflect.MessageType
	// body names the field that the body is: "*" for the whole request, "" for a
	// request without a body.
	body string
	// variables are the fields that the path gives.
	variables []protoreflect.FieldDescriptor
}

// A resource is a path with all that can be done there.
type resource struct {
	segments []segment
	verb     string
	routes   map[string]*route // by HTTP method
	stream   *streamRoute      // GET as a stream; nil: there is none
}

// A segment of a path is a text or, with an empty text, a variable.
type segment struct {
	text     string
	variable string
}

// resourcesOf reads the annotations of a service's RPCs.
func resourcesOf(service protoreflect.ServiceDescriptor) ([]*resource, error) {
	var resources []*resource
	for i := range service.Methods().Len() {
		rpc := service.Methods().Get(i)
		rule, ok := proto.GetExtension(rpc.Options(), annotations.E_Http).(*annotations.HttpRule)
		if !ok || rule.GetPattern() == nil {
			continue
		}
		method, template := ruleTarget(rule)
		segments, verb, ok := parseTemplate(template)
		if !ok || method == "" || len(rule.GetAdditionalBindings()) > 0 {
			return nil, fmt.Errorf("%s: the annotation is of a kind that is not supported", rpc.FullName())
		}
		input, err := protoregistry.GlobalTypes.FindMessageByName(rpc.Input().FullName())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", rpc.FullName(), err)
		}
		added := &route{rpc: rpc, input: input, body: rule.GetBody()}
		for _, s := range segments {
			if s.variable == "" {
				continue
			}
			field := rpc.Input().Fields().ByName(protoreflect.Name(s.variable))
			if field == nil {
				return nil, fmt.Errorf("%s: there is no field %s", rpc.FullName(), s.variable)
			}
			added.variables = append(added.variables, field)
		}
		i := slices.IndexFunc(resources, func(res *resource) bool {
			return res.verb == verb && slices.Equal(res.segments, segments)
		})
		if i < 0 {
			i = len(resources)
			resources = append(resources, &resource{segments: segments, verb: verb, routes: map[string]*route{}})
		}
		resources[i].routes[method] = added
	}
	return resources, nil
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

// parseTemplate takes paths of texts and whole-segment variables apart, such as
// /api/v1/users/{user_id}:undelete.
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

// find returns the resource at the request's path, nil if there is none, and the
// values of the path's variables.
func (h *handler) find(r *http.Request) (*resource, []string) {
	// A slash within a segment is not one between two.
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

// allow lists the methods for the Allow header.
func (res *resource) allow() string {
	methods := make([]string, 0, len(res.routes)+2)
	for method := range res.routes {
		methods = append(methods, method)
	}
	switch {
	case res.routes[http.MethodGet] != nil:
		methods = append(methods, http.MethodHead)
	case res.stream != nil:
		methods = append(methods, http.MethodGet)
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}
