package service

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/gen"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// upperLimits returns the upper limits in the rules of a field. A limit occurs as often as it is set.
func upperLimits(rules *validate.FieldRules) (limits []uint64) {
	list, pairs := rules.GetRepeated(), rules.GetMap()
	for _, limit := range []uint64{
		rules.GetString().GetMaxLen(), rules.GetString().GetMaxBytes(), uint64(rules.GetInt32().GetLte()),
		list.GetMaxItems(), list.GetItems().GetString().GetMaxLen(), list.GetItems().GetString().GetMaxBytes(),
		pairs.GetMaxPairs(), pairs.GetKeys().GetString().GetMaxLen(), pairs.GetValues().GetString().GetMaxBytes(),
	} {
		if limit > 0 {
			limits = append(limits, limit)
		}
	}
	return limits
}

var (
	number    = regexp.MustCompile(`\d+(,\d{3})*`)
	ruleLines = regexp.MustCompile(`(?m)^ *string\.\w+ = .*$`) // appended by the generator
)

// mentions returns how often a comment has each number.
func mentions(comment string) map[uint64]int {
	counts := make(map[uint64]int)
	for _, text := range number.FindAllString(ruleLines.ReplaceAllString(comment, ""), -1) {
		if n, err := strconv.ParseUint(strings.ReplaceAll(text, ",", ""), 10, 64); err == nil {
			counts[n]++
		}
	}
	return counts
}

// The comment of each field states its upper limits.
func TestLimitsAreDocumented(t *testing.T) {
	var document struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Description string }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(gen.OpenAPI()), &document); err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, file := range []protoreflect.FileDescriptor{userv1.File_user_v1_user_proto, userv1.File_user_v1_user_service_proto} {
		for i := range file.Messages().Len() {
			message := file.Messages().Get(i)
			schema := document.Components.Schemas[string(message.FullName())]
			for j := range message.Fields().Len() {
				fd := message.Fields().Get(j)
				rules, _ := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
				comment := schema.Properties[fd.JSONName()].Description
				counts := mentions(comment)
				for _, limit := range upperLimits(rules) {
					checked++
					if counts[limit]--; counts[limit] < 0 {
						t.Errorf("comment of %s = %q, want its limit of %d in it", fd.FullName(), comment, limit)
					}
				}
			}
		}
	}
	if checked == 0 {
		t.Error("no limits found")
	}
}
