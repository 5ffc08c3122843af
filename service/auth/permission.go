package auth

import "slices"

// Permission is a permission name as used in tokens and rules. No permission includes
// another one.
type Permission string

// Permissions of the service.
const (
	UsersRead         Permission = "users.read"          // read users, including deleted ones by id
	UsersReadDeleted  Permission = "users.read_deleted"  // list deleted users
	UsersWrite        Permission = "users.write"         // create users and change any of their fields
	UsersDelete       Permission = "users.delete"        // delete and undelete users
	UsersPurge        Permission = "users.purge"         // erase deleted users
	UsersWatchAll     Permission = "users.watch_all"     // follow the status of all users
	ActivitiesRead    Permission = "activities.read"     // read the activities of one user
	ActivitiesReadAll Permission = "activities.read_all" // read the activities of all users
	ActivitiesRecord  Permission = "activities.record"   // record application activities
	StatusRead        Permission = "status.read"         // follow the status of named users
	StatusWrite       Permission = "status.write"        // set the status of a user
)

// permissionBits lists the permissions; the index is the bit in Permissions.
var permissionBits = [...]Permission{
	UsersRead, UsersReadDeleted, UsersWrite, UsersDelete, UsersPurge, UsersWatchAll,
	ActivitiesRead, ActivitiesReadAll, ActivitiesRecord,
	StatusRead, StatusWrite,
}

// Permissions is a set of permissions. The zero value is empty.
type Permissions uint32

// PermissionsOf returns a set. It ignores unknown permissions, because a token may carry
// permissions of other services.
func PermissionsOf(list ...Permission) Permissions {
	var set Permissions
	for _, p := range list {
		set |= p.bit()
	}
	return set
}

// AllPermissions returns the full set.
func AllPermissions() Permissions { return 1<<len(permissionBits) - 1 }

// Has reports whether p is in the set.
func (s Permissions) Has(p Permission) bool { return s&p.bit() != 0 }

// Without returns the set without p.
func (s Permissions) Without(p Permission) Permissions { return s &^ p.bit() }

// List returns the permissions in the set.
func (s Permissions) List() []Permission {
	var list []Permission
	for _, p := range permissionBits {
		if s.Has(p) {
			list = append(list, p)
		}
	}
	return list
}

// bit returns 0 for an unknown permission.
func (p Permission) bit() Permissions {
	if i := slices.Index(permissionBits[:], p); i >= 0 {
		return 1 << i
	}
	return 0
}
