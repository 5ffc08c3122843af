package encoding

import (
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/user"
)

func drawTime(r *rapid.T, label string) time.Time {
	n := rapid.Int64Range(-1<<50, 1<<52).Draw(r, label)
	if n%3 == 0 {
		return time.Time{}
	}
	return FromMicros(n)
}

func drawMap(r *rapid.T, label string) map[string]string {
	m := rapid.MapOf(rapid.String(), rapid.String()).Draw(r, label)
	if len(m) == 0 {
		return nil
	}
	return m
}

func drawList(r *rapid.T, label string) []string {
	list := rapid.SliceOf(rapid.String()).Draw(r, label)
	if len(list) == 0 {
		return nil
	}
	return list
}

func drawUser(r *rapid.T) *user.User {
	u := new(user.User)
	for _, f := range columns {
		switch {
		case f.Int != nil:
			*f.Int(u) = rapid.Int64().Draw(r, f.Name)
		case f.Text != nil:
			*f.Text(u) = rapid.String().Draw(r, f.Name)
		case f.Status != nil:
			*f.Status(u) = user.Status(rapid.IntRange(0, 3).Draw(r, f.Name))
		case f.Time != nil:
			*f.Time(u) = drawTime(r, f.Name)
		case f.List != nil:
			*f.List(u) = drawList(r, f.Name)
		case f.Map != nil:
			*f.Map(u) = drawMap(r, f.Name)
		}
	}
	return u
}

func TestCodecRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		list, m := drawList(r, "list"), drawMap(r, "map")
		if got, err := DecodeList(EncodeList(list)); err != nil || !reflect.DeepEqual(got, list) {
			r.Fatalf("DecodeList = %q, %v, want %q", got, err, list)
		}
		for _, form := range []byte{FormMap, FormRedacted} {
			b := EncodeMap(form, m)
			got, bytes, err := DecodeDetails(b)
			if want := (&user.Activity{Details: m}).DetailBytes(); err != nil || !reflect.DeepEqual(got, m) || bytes != want {
				r.Fatalf("DecodeDetails = %q, %d, %v, want %q, %d", got, bytes, err, m, want)
			}
			if !slices.Equal(b, EncodeMap(form, m)) {
				r.Fatal("EncodeMap is not deterministic")
			}
		}
		a := Result{
			Outcome: user.Outcome(rapid.IntRange(0, 4).Draw(r, "outcome")), Position: rapid.Int64().Draw(r, "position"),
			First: rapid.Int64().Draw(r, "first"), Rows: rapid.IntRange(0, math.MaxInt32).Draw(r, "rows"),
		}
		if rapid.Bool().Draw(r, "user") {
			a.User = drawUser(r)
		}
		if got, err := DecodeResult(EncodeResult(a)); err != nil || !reflect.DeepEqual(got, a) {
			r.Fatalf("DecodeResult = %+v, %v, want %+v", got, err, a)
		}
	})
}

func TestDifference(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		from, to := drawUser(r), drawUser(r)
		for _, f := range columns {
			if rapid.Bool().Draw(r, f.Name+" unchanged") {
				f.Copy(to, from)
			}
		}
		a, err := DecodeResult(EncodeResult(Result{Difference: NewDifference(from, to)}))
		if err != nil {
			r.Fatal(err)
		}
		got := from.Clone()
		if err := a.Difference.Apply(got); err != nil || !got.Equal(to, ^user.FieldSet(0)) {
			r.Errorf("Difference applied to %+v = %+v, %v, want %+v", from, got, err, to)
		}
	})
}

func TestInvalidEncodingsAreErrors(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(r, "bytes")
		for _, form := range []byte{formList, FormMap, formResult, formOldResult, formOldShared} {
			all := append([]byte{form}, b...)
			_, _ = DecodeList(all)
			_, _ = DecodeMap(all)
			_, _ = DecodeResult(all)
		}
		m := map[string]string{"key": rapid.String().Draw(r, "value")}
		whole := EncodeMap(FormMap, m)
		cut := rapid.IntRange(1, len(whole)-1).Draw(r, "cut")
		if _, err := DecodeMap(whole[:cut]); err == nil {
			r.Fatalf("DecodeMap of %d of %d bytes succeeded", cut, len(whole))
		}
		if _, err := DecodeMap(append(whole, 0)); err == nil {
			r.Fatal("DecodeMap with a trailing byte succeeded")
		}
	})
	for _, form := range []byte{0, 'Z', 'l'} {
		_, err := DecodeList([]byte{form, 0})
		_, err2 := DecodeMap([]byte{form, 0})
		_, err3 := DecodeResult([]byte{form, 0})
		if err == nil || err2 == nil || err3 == nil {
			t.Errorf("decoding form %q succeeded", form)
		}
	}
	whole := EncodeList([]string{"a", "b"})
	for name, b := range map[string][]byte{
		"cut": whole[:len(whole)-1], "trailing byte": append(whole, 0),
		"long number": append([]byte{formList}, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0),
	} {
		if got, err := DecodeList(b); err == nil {
			t.Errorf("%s: DecodeList(%x) = %q, want an error", name, b, got)
		}
	}
}

func BenchmarkDecodeDetails(b *testing.B) {
	in := EncodeMap(FormMap, map[string]string{
		"actor": "actor", "request_id": "0190c1f6-7b1a-7000-8000-000000000000",
		"new.username": "anna", "new.email": "anna@example.org", "new.status": "USER_STATUS_ACTIVE",
	})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeMap(in); err != nil {
			b.Fatal(err)
		}
	}
}
