package encoding

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/yourorg/userservice/service/user"
)

// Stored results of the forms before and now, in hexadecimal. Never change them: stores contain
// such results.
const (
	oldResult = "41022a29020702818081b184e991032980bea98184e99103808081b184e9910303808081b184e991038080f6aabcb4" +
		"920305c3846e6e6510616e6e65406578616d706c652e6f7267074c020376697000124d0205656d70747900047465616d03726564"
	oldShared = "53022a29020703818081b184e99103"
	oldNoUser = "41022a2a01"
	nowResult = "500802102a182920022a6f08071205c3846e6e651a10616e6e65406578616d706c652e6f726720022880bea981" +
		"84e9910330808081b184e991033a037669703a0042090a05656d7074791200420b0a047465616d1203726564480358808081" +
		"b184e99103608080f6aabcb49203c03e818081b184e99103c83e29"
	nowShared = "500802102a1829200230012a0e08074803c03e818081b184e99103"
	nowNoUser = "500802102a182a2001"
)

func storedAnne() *user.User {
	at := func(micros int64) time.Time { return time.UnixMicro(micros).UTC() }
	return &user.User{
		ID: 7, Username: "Änne", Email: "anne@example.org", Status: user.StatusInactive, StatusTime: at(1767225600000001),
		StatusPosition: 41, CreatedAt: at(1767225500000000), UpdatedAt: at(1767225600000000), Tags: []string{"vip", ""},
		Metadata: map[string]string{"team": "red", "empty": ""}, Version: 3,
		DeletedAt: at(1767225600000000), PurgeAt: at(1769817600000000),
	}
}

func fromHex(t *testing.T, encoded string) []byte {
	t.Helper()
	b, err := hex.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStoredResultsStayReadable(t *testing.T) {
	whole := Result{Outcome: user.OutcomeUpdated, Position: 42, First: 41, Rows: 2, User: storedAnne()}
	shared, noUser := whole, Result{Outcome: user.OutcomeUpdated, Position: 42, First: 42, Rows: 1}
	shared.Shared, shared.User = true, &user.User{ID: 7, Version: 3, StatusTime: storedAnne().StatusTime}
	for _, test := range []struct {
		name, encoded string
		want          Result
		written       bool // EncodeResult writes this form
	}{
		{"old", oldResult, whole, false}, {"old, shared", oldShared, shared, false}, {"old, no user", oldNoUser, noUser, false},
		{"whole", nowResult, whole, true}, {"shared", nowShared, shared, true}, {"no user", nowNoUser, noUser, true},
	} {
		if got, err := DecodeResult(fromHex(t, test.encoded)); err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: DecodeResult() = %+v, %v, want %+v", test.name, got, err, test.want)
		}
		if got := fmt.Sprintf("%x", EncodeResult(test.want)); test.written && got != test.encoded {
			t.Errorf("%s: EncodeResult() = %s, want %s", test.name, got, test.encoded)
		}
	}
}

func TestUnknownFieldsOfStoredResultsAreIgnored(t *testing.T) {
	added := func(b []byte) []byte {
		b = appendNumber(appendBytes(b, 900, "text"), 901, 5)
		b = protowire.AppendFixed64(protowire.AppendTag(b, 902, protowire.Fixed64Type), 1)
		return protowire.AppendFixed32(protowire.AppendTag(b, 1, protowire.Fixed32Type), 1)
	}
	b := appendBytes([]byte{formResult}, resultUser, added(encodeUser(storedAnne())))
	got, err := DecodeResult(added(b))
	if want := (Result{User: storedAnne()}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("DecodeResult() = %+v, %v, want %+v", got, err, want)
	}
}
