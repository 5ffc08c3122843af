package auth

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/user"
)

// row is the policy of one procedure.
type row struct {
	procedure string
	access    access
	needs     Permission
	// also are the additional conditions on the request.
	also []condition
}

// access is the required level of authentication. The zero value is the strictest.
type access uint8

const (
	permitted     access = iota // the permission of the row
	open                        // no credentials
	reflection                  // as configured, see Reflection
	authenticated               // any authenticated caller
)

// condition requires a permission for requests in which the given fields are all set or all
// unset. A field with its default value is unset.
type condition struct {
	set   []protoreflect.Name
	unset []protoreflect.Name
	needs Permission
}

func fields(names ...protoreflect.Name) []protoreflect.Name { return names }

const (
	service = "/user.v1.UserService/"
	health  = "/grpc.health.v1.Health/"
)

// rows maps procedures to the permissions that they need. It is immutable.
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
	{procedure: service + "PurgeUser", needs: UsersPurge},
	{procedure: service + "StreamUserActivities", needs: ActivitiesRead, also: []condition{
		{unset: fields("user_id"), needs: ActivitiesReadAll},
	}},
	{procedure: service + "ListUserActivities", needs: ActivitiesRead, also: []condition{
		{unset: fields("user_id"), needs: ActivitiesReadAll},
	}},
	{procedure: service + "RecordUserActivity", needs: ActivitiesRecord},
	// Setting a status also follows it, so the stream needs status.read. A caller that
	// has only status.write uses UpdateUserStatus.
	{procedure: service + "SyncUserStatus", needs: StatusRead, also: []condition{
		{set: fields("status"), needs: StatusWrite},
		{unset: fields("status", "user_id"), needs: UsersWatchAll},
	}},
	{procedure: service + "UpdateUserStatus", needs: StatusWrite},
	{procedure: service + "WatchUserStatus", needs: StatusRead, also: []condition{
		{set: fields("all"), needs: UsersWatchAll},
	}},
	{procedure: service + "WatchUsers", needs: UsersRead, also: []condition{
		{set: fields("show_deleted"), needs: UsersReadDeleted},
	}},

	{procedure: health + "Check", access: open},
	{procedure: health + "Watch", access: open},
	{procedure: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", access: reflection},
	{procedure: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", access: reflection},
}

// redaction lists the public fields of a message type. The other fields need a permission
// beyond that of the call, wherever in a response the message occurs.
type redaction struct {
	message protoreflect.FullName
	// public are the fields that need no further permission. A field added later is
	// not public by default.
	public []protoreflect.Name
	needs  Permission
	// redactMap returns the entries of the only non-public field, a map, that are shown
	// without the permission. nil: none.
	redactMap func(map[string]string) map[string]string
}

var redactions = []redaction{
	{message: "user.v1.User", needs: UsersRead, public: fields("user_id", "version", "etag")},
	{message: "user.v1.UserActivity", needs: UsersRead,
		public: fields("activity_id", "user_id", "action", "timestamp"), redactMap: user.WithholdDetails},
	{message: "user.v1.UserStatusUpdate", needs: StatusRead,
		public: fields("user_id", "error", "failure", "client_seq", "epoch", "progress")},
	{message: "user.v1.ItemFailure", needs: UsersRead,
		public:    fields("index", "user_id", "code", "reason", "message", "field_violations"),
		redactMap: redactUserMetadata},
}

// redactionNeeds are the permissions with which nothing is redacted.
var redactionNeeds = func() (all Permissions) {
	for i := range redactions {
		all |= redactions[i].needs.bit()
	}
	return all
}()

// userMetadata are the keys of error metadata that reveal data of a stored user. They need
// UsersRead.
var userMetadata = []string{"changed_fields", "holder_deleted"}

var table = func() map[string]*row {
	t := make(map[string]*row, len(rows))
	for i := range rows {
		t[rows[i].procedure] = &rows[i]
	}
	return t
}()

// Reflection configures access to the server reflection service.
type Reflection uint8

// Access to server reflection.
const (
	ReflectionOff     Reflection = iota // disabled
	ReflectionCallers                   // authenticated callers
	ReflectionOpen                      // no credentials needed
)

// Policy authorizes calls. It is safe for concurrent use.
type Policy struct {
	reflection Reflection
	extra      map[string]*row // by procedure
	plans      sync.Map        // message name -> *plan
}

// NewPolicy returns the policy for this service. Allow must be called before its first use.
func NewPolicy(r Reflection) *Policy { return &Policy{reflection: r, extra: make(map[string]*row)} }

// Allow adds a procedure of another service. It needs no credentials if isOpen is set, else
// any authenticated caller may call it.
func (p *Policy) Allow(procedure string, isOpen bool) {
	r := &row{procedure: procedure, access: authenticated}
	if isOpen {
		r.access = open
	}
	p.extra[procedure] = r
}

func (p *Policy) row(procedure string) *row {
	if r := table[procedure]; r != nil {
		return r
	}
	return p.extra[procedure]
}

// Open reports whether the procedure needs no credentials.
func (p *Policy) Open(procedure string) bool {
	r := p.row(procedure)
	return r != nil && (r.access == open || r.access == reflection && p.reflection == ReflectionOpen)
}

// Authorize returns nil if the caller in ctx may call the procedure. Errors:
// CREDENTIALS_MISSING for an anonymous caller, else PERMISSION_MISSING. Pass the procedure
// of the handler, never the request path, which can have several spellings.
func (p *Policy) Authorize(ctx context.Context, procedure string) error {
	r := p.row(procedure)
	switch {
	case r == nil, r.access == reflection && p.reflection == ReflectionOff:
		return &user.Error{
			Code: user.PermissionDenied, Reason: user.PermissionMissing, Message: "procedure not allowed",
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

// AuthorizeMessage returns nil if the caller in ctx may send the message to the procedure,
// by the conditions on its fields. Call it for each request message; the handler of
// SyncUserStatus calls it for each item. Errors are those of Require.
func AuthorizeMessage(ctx context.Context, procedure string, message any) error {
	r := table[procedure]
	if r == nil || len(r.also) == 0 {
		return nil
	}
	m, ok := message.(proto.Message)
	for i := range r.also {
		if ok && !r.also[i].holds(m.ProtoReflect()) {
			continue
		}
		// A message of an unknown type needs every permission.
		if err := Require(ctx, r.also[i].needs); err != nil {
			return err
		}
	}
	return nil
}

// Require returns nil if the caller in ctx has the permission. Errors, of type *user.Error:
// CREDENTIALS_MISSING for an anonymous caller, else PERMISSION_MISSING with the permission.
func Require(ctx context.Context, p Permission) error {
	switch {
	case callerStateOf(ctx).use(p):
		return nil
	case FromContext(ctx).Kind == Anonymous:
		return newCredentialsMissingError()
	}
	return newPermissionError(p)
}

func newPermissionError(p Permission) *user.Error {
	return &user.Error{
		Code: user.PermissionDenied, Reason: user.PermissionMissing,
		Message:  "permission required: " + string(p),
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

// lookUp finds a field. The caller treats an unknown field as a met condition, so that the
// permission is required.
func lookUp(m protoreflect.Message, name protoreflect.Name) (protoreflect.FieldDescriptor, bool) {
	field := m.Descriptor().Fields().ByName(name)
	return field, field != nil
}
