package auth

import "slices"

// Permission is something that a caller may do, as tokens and rules name it. None
// includes another.
type Permission string

// The permissions.
const (
	UsersRead         Permission = "users.read"          // read users, deleted ones by their id
	UsersReadDeleted  Permission = "users.read_deleted"  // list deleted users
	UsersWrite        Permission = "users.write"         // create users and change any field of theirs, the status too
	UsersDelete       Permission = "users.delete"        // delete users and take that back
	UsersWatchAll     Permission = "users.watch_all"     // follow everybody's status
	ActivitiesRead    Permission = "activities.read"     // read a user's rows of the log
	ActivitiesReadAll Permission = "activities.read_all" // read the whole log
	ActivitiesRecord  Permission = "activities.record"   // add an application's own rows
	StatusRead        Permission = "status.read"         // follow the status of named users
	StatusWrite       Permission = "status.write"        // set a user's status and nothing else
)

// known gives each permission its bit.
var known = [...]Permission{
	UsersRead, UsersReadDeleted, UsersWrite, UsersDelete, UsersWatchAll,
	ActivitiesRead, ActivitiesReadAll, ActivitiesRecord,
	StatusRead, StatusWrite,
}

// Known returns every permission that there is.
func Known() []Permission { return slices.Clone(known[:]) }

// Permissions is a set of them. The zero value is empty.
type Permissions uint32

// PermissionsOf returns the set of those given. What is not a permission of this
// service is left out: a token may carry those of others.
func PermissionsOf(list ...Permission) Permissions {
	var set Permissions
	for _, p := range list {
		set |= p.bit()
	}
	return set
}

// AllPermissions returns the full set.
func AllPermissions() Permissions { return 1<<len(known) - 1 }

// Has reports whether p is in the set.
func (s Permissions) Has(p Permission) bool { return s&p.bit() != 0 }

// Without returns the set without p.
func (s Permissions) Without(p Permission) Permissions { return s &^ p.bit() }

// List returns what is in the set.
func (s Permissions) List() []Permission {
	var list []Permission
	for _, p := range known {
		if s.Has(p) {
			list = append(list, p)
		}
	}
	return list
}

// bit is 0 for what is not a permission of this service.
func (p Permission) bit() Permissions {
	if i := slices.Index(known[:], p); i >= 0 {
		return 1 << i
	}
	return 0
}
