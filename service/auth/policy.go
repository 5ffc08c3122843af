package auth

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/user"
)

// row says what a call of one procedure needs.
type row struct {
	procedure string
	access    access
	needs     Permission
	// also holds what some requests need beside that.
	also []condition
}

// access is what has to be known of the caller. The zero value is the strictest.
type access uint8

const (
	permitted     access = iota // the row's permission
	open                        // nothing
	reflection                  // what the configuration says
	authenticated               // that it is authenticated
)

// condition is a row below the procedure: it holds for a request in which all of
// these fields are set, or not set. A field of the default value counts as not set.
type condition struct {
	set   []protoreflect.Name
	unset []protoreflect.Name
	needs Permission
}

// fields names fields of a request.
func fields(names ...protoreflect.Name) []protoreflect.Name { return names }

const (
	service = "/user.v1.UserService/"
	health  = "/grpc.health.v1.Health/"
)

// rows are the policy: the one place that says what a call needs. It is read when the
// program starts, never changed.
var rows = []row{
	{procedure: service + "GetUser", needs: UsersRead},
	{procedure: service + "BatchGetUsers", needs: UsersRead},
	{procedure: service + "ListUsers", needs: UsersRead, also: []condition{
		{set: fields("show_deleted"), needs: UsersReadDeleted},
	}},
	{procedure: service + "CreateUser", needs: UsersWrite},
	{procedure: service + "CreateUsers", needs: UsersWrite},
	{procedure: service + "BatchCreateUsers", needs: UsersWrite},
	{procedure: service + "UpdateUser", needs: UsersWrite},
	{procedure: service + "UpdateUsers", needs: UsersWrite},
	{procedure: service + "BatchUpdateUsers", needs: UsersWrite},
	{procedure: service + "DeleteUser", needs: UsersDelete},
	{procedure: service + "UndeleteUser", needs: UsersDelete},
	{procedure: service + "StreamUserActivities", needs: ActivitiesRead, also: []condition{
		{unset: fields("user_id"), needs: ActivitiesReadAll},
	}},
	{procedure: service + "ListUserActivities", needs: ActivitiesRead, also: []condition{
		{unset: fields("user_id"), needs: ActivitiesReadAll},
	}},
	{procedure: service + "RecordUserActivity", needs: ActivitiesRecord},
	// A status that is set is followed as well, so the stream as such needs
	// status.read; who may only write has UpdateUserStatus.
	{procedure: service + "SyncUserStatus", needs: StatusRead, also: []condition{
		{set: fields("status"), needs: StatusWrite},
		{unset: fields("status", "user_id"), needs: UsersWatchAll},
	}},
	{procedure: service + "UpdateUserStatus", needs: StatusWrite},
	{procedure: service + "WatchUserStatus", needs: StatusRead, also: []condition{
		{set: fields("all"), needs: UsersWatchAll},
	}},

	{procedure: health + "Check", access: open},
	{procedure: health + "Watch", access: open},
	{procedure: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", access: reflection},
	{procedure: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", access: reflection},
}

// part says what of a message, wherever it is in a response, needs a permission beside
// that of the call.
type part struct {
	message protoreflect.FullName
	// open are the fields that need no further permission. Every other field does, one
	// that is added later too.
	open  []protoreflect.Name
	needs Permission
	// without returns what is shown of the one other field, a map, without the
	// permission; nil: nothing is.
	without func(map[string]string) map[string]string
}

// parts are the second half of the policy: what a response shows of its data.
var parts = []part{
	{message: "user.v1.User", needs: UsersRead, open: fields("user_id", "version", "etag")},
	{message: "user.v1.UserActivity", needs: UsersRead,
		open: fields("activity_id", "user_id", "action", "timestamp"), without: user.WithholdDetails},
	{message: "user.v1.UserStatusUpdate", needs: StatusRead,
		open: fields("user_id", "error", "failure", "client_seq", "epoch", "progress")},
	{message: "user.v1.ItemFailure", needs: UsersRead,
		open:    fields("index", "user_id", "code", "reason", "message", "field_violations"),
		without: withoutUser},
}

// userMetadata are the keys of an error's metadata that tell of a stored user more than
// its id and version. They need UsersRead.
var userMetadata = []string{"changed_fields", "holder_deleted"}

var table = func() map[string]*row {
	t := make(map[string]*row, len(rows))
	for i := range rows {
		t[rows[i].procedure] = &rows[i]
	}
	return t
}()

// Reflection says who may ask the server which RPCs it has.
type Reflection uint8

// Who may.
const (
	ReflectionOff     Reflection = iota // nobody
	ReflectionCallers                   // whoever is recognized
	ReflectionOpen                      // everybody
)

// Policy is the table with what the configuration says. It is safe for use by many
// goroutines.
type Policy struct {
	reflection Reflection
	further    map[string]*row // by procedure
	plans      sync.Map        // message name -> *plan
}

// NewPolicy returns the policy of the table. Allow adds to it before its first use.
func NewPolicy(r Reflection) *Policy { return &Policy{reflection: r, further: make(map[string]*row)} }

// Allow adds a procedure that is not in the table. An open one needs no credentials; any
// authenticated caller may call the others.
func (p *Policy) Allow(procedure string, isOpen bool) {
	r := &row{procedure: procedure, access: authenticated}
	if isOpen {
		r.access = open
	}
	p.further[procedure] = r
}

func (p *Policy) row(procedure string) *row {
	if r := table[procedure]; r != nil {
		return r
	}
	return p.further[procedure]
}

// Open reports whether the procedure needs no credentials.
func (p *Policy) Open(procedure string) bool {
	r := p.row(procedure)
	return r != nil && (r.access == open || r.access == reflection && p.reflection == ReflectionOpen)
}

// Call says whether the caller in the context may call the procedure at all. Errors:
// CREDENTIALS_MISSING for a caller who is nobody, otherwise PERMISSION_MISSING. Ask it
// for the procedure that a handler serves, never for a path, which has many spellings.
func (p *Policy) Call(ctx context.Context, procedure string) error {
	r := p.row(procedure)
	switch {
	case r == nil, r.access == reflection && p.reflection == ReflectionOff:
		return &user.Error{
			Code: user.PermissionDenied, Reason: user.PermissionMissing, Message: "nobody may call this",
		}
	case p.Open(procedure):
		return nil
	case r.access == reflection, r.access == authenticated:
		if c := FromContext(ctx); c.Kind == Anonymous && c.Permissions != AllPermissions() {
			return newCredentialsMissingError()
		}
		return nil
	default:
		return Require(ctx, r.needs)
	}
}

// RequireFor returns nil if the caller in the context may ask what the message asks of
// the procedure: it reads the rows below the procedure. A request is one message; so is
// each item of SyncUserStatus, whose handler asks for each by itself. Errors: as Require.
func RequireFor(ctx context.Context, procedure string, message any) error {
	r := table[procedure]
	if r == nil || len(r.also) == 0 {
		return nil
	}
	m, ok := message.(proto.Message)
	for i := range r.also {
		if ok && !r.also[i].holds(m.ProtoReflect()) {
			continue
		}
		// What cannot be looked into is taken for asking everything.
		if err := Require(ctx, r.also[i].needs); err != nil {
			return err
		}
	}
	return nil
}

// Require returns nil if the caller in the context has the permission. Errors, both
// *user.Error: CREDENTIALS_MISSING for a caller who is nobody, otherwise
// PERMISSION_MISSING, which names the permission.
func Require(ctx context.Context, p Permission) error {
	switch {
	case standingOf(ctx).use(p):
		return nil
	case FromContext(ctx).Kind == Anonymous:
		return newCredentialsMissingError()
	}
	return newPermissionError(p)
}

func newPermissionError(p Permission) *user.Error {
	return &user.Error{
		Code: user.PermissionDenied, Reason: user.PermissionMissing,
		Message:  "this needs the permission " + string(p),
		Metadata: map[string]string{"permission": string(p)},
	}
}

func (c *condition) holds(m protoreflect.Message) bool {
	for _, name := range c.set {
		if field, ok := lookUp(m, name); ok && !m.Has(field) {
			return false
		}
	}
	for _, name := range c.unset {
		if field, ok := lookUp(m, name); ok && m.Has(field) {
			return false
		}
	}
	return true
}

// lookUp finds a field. Where there is none the condition counts as met: what cannot
// be looked into needs the permission.
func lookUp(m protoreflect.Message, name protoreflect.Name) (protoreflect.FieldDescriptor, bool) {
	field := m.Descriptor().Fields().ByName(name)
	return field, field != nil
}
