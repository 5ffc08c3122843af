package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// getCommand is userctl get.
type getCommand struct {
	User []string `arg:"" help:"Ids, e-mail addresses or usernames."`
}

// Run shows users.
func (c *getCommand) Run(ctx context.Context, s *session) error {
	s.page()
	for i, name := range c.User {
		u, err := s.find(ctx, name)
		if err != nil {
			return err
		}
		if i > 0 && s.format == "table" {
			if _, err := fmt.Fprintln(s.output.out); err != nil {
				return err
			}
		}
		if err := s.one(u, userFields(u)); err != nil {
			return err
		}
	}
	return nil
}

// listCommand is userctl list.
type listCommand struct {
	Filter      string `short:"f" help:"Filter (AIP-160), such as 'status = ACTIVE AND tags:\"vip\"'."`
	Search      string `short:"q" help:"Text in any part of a username or an e-mail address, at least 3 letters."`
	OrderBy     string `complete:"user_id,username,email,created_at,updated_at,last_activity_id" help:"Order: user_id, username, email, created_at, updated_at or last_activity_id, optionally with \" desc\"."`
	Limit       int    `default:"0" help:"Maximum number of users; 0: all."`
	ShowDeleted bool   `help:"Include deleted users."`
}

// Run lists users.
func (c *listCommand) Run(ctx context.Context, s *session) error {
	if c.Limit < 0 {
		return newUsageError("--limit: must not be negative")
	}
	request := &userv1.ListUsersRequest{
		Filter: filterOf(c.Filter, c.Search), OrderBy: c.OrderBy, ShowDeleted: c.ShowDeleted, PageSize: pageSize(c.Limit),
	}
	s.page()
	rows := s.userList()
	for u, err := range s.client.Users(ctx, request) {
		if err != nil {
			return rows.endWith(err)
		}
		if err := rows.add(u); err != nil {
			return err
		}
		if rows.rows == c.Limit {
			break
		}
	}
	return rows.end()
}

// maxPage is the maximum size of a page.
const maxPage = 1000

// pageSize returns the size of pages of a list; limit 0: no limit.
func pageSize(limit int) int32 {
	if limit == 0 {
		return maxPage
	}
	return int32(min(limit, maxPage))
}

// filterOf joins a filter and a search.
func filterOf(filter, search string) string {
	if search == "" {
		return filter
	}
	search = "search = " + quote(search)
	if filter == "" {
		return search
	}
	return "(" + filter + ") AND " + search
}

// quote returns a string of a filter.
func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

// find returns the user with an id, an e-mail address or a username, also if it is deleted.
func (s *session) find(ctx context.Context, name string) (*userv1.User, error) {
	if id, err := strconv.ParseInt(name, 10, 64); err == nil {
		if id <= 0 {
			return nil, newUsageError("user id %q: must be greater than 0", name)
		}
		return s.client.GetUser(ctx, id)
	}
	if name == "" || strings.Contains(name, "*") {
		return nil, newUsageError("user %q: must be an id, an e-mail address or a username", name)
	}
	field := "username"
	if strings.Contains(name, "@") {
		field = "email"
	}
	for u, err := range s.client.Users(ctx, &userv1.ListUsersRequest{Filter: field + " = " + quote(name), ShowDeleted: true}) {
		return u, err
	}
	return nil, newNotFoundError(field, name)
}

// userID returns the id of find. An id is not looked up.
func (s *session) userID(ctx context.Context, name string) (int64, error) {
	if id, err := strconv.ParseInt(name, 10, 64); err == nil && id > 0 {
		return id, nil
	}
	u, err := s.find(ctx, name)
	return u.GetUserId(), err
}

func userFields(u *userv1.User) []field {
	fields := []field{
		{"user_id", idText(u.GetUserId())},
		{"username", u.GetUsername()},
		{"email", u.GetEmail()},
		{"status", statusText(u.GetStatus())},
		{"tags", strings.Join(u.GetTags(), ", ")},
	}
	for _, key := range slices.Sorted(maps.Keys(u.GetMetadata())) {
		fields = append(fields, field{"metadata." + key, u.GetMetadata()[key]})
	}
	return append(fields,
		field{"version", idText(u.GetVersion())},
		field{"etag", u.GetEtag()},
		field{"created_at", timeText(u.GetCreatedAt())},
		field{"updated_at", timeText(u.GetUpdatedAt())},
		field{"deleted_at", timeText(u.GetDeletedAt())},
		field{"purge_at", timeText(u.GetPurgeAt())},
		field{"last_activity_id", idText(u.GetLastActivityId())},
	)
}

func (s *session) userList() *list[*userv1.User] {
	return newList(s.output, userRow, "USER ID", "USERNAME", "EMAIL", "STATUS", "TAGS", "UPDATED")
}

func userRow(u *userv1.User) []string {
	status := statusText(u.GetStatus())
	if u.GetDeletedAt() != nil {
		status = "deleted"
	}
	return []string{idText(u.GetUserId()), u.GetUsername(), u.GetEmail(), status, strings.Join(u.GetTags(), ", "), timeText(u.GetUpdatedAt())}
}

// idText returns a number, or "" for 0, which is unset.
func idText(id int64) string {
	if id == 0 {
		return ""
	}
	return strconv.FormatInt(id, 10)
}

const statusPrefix = "USER_STATUS_"

// statusText returns a status in lower case, or "" if it is unspecified.
func statusText(status userv1.UserStatus) string {
	if status == userv1.UserStatus_USER_STATUS_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(status.String(), statusPrefix))
}

// parseStatus is the inverse of statusText. It accepts the name of the enum too.
func parseStatus(text string) (userv1.UserStatus, error) {
	name := strings.ToUpper(text)
	status := userv1.UserStatus(userv1.UserStatus_value[statusPrefix+strings.TrimPrefix(name, statusPrefix)])
	if status == userv1.UserStatus_USER_STATUS_UNSPECIFIED {
		return status, newUsageError("status %q: must be active, inactive or suspended", text)
	}
	return status, nil
}

// mapText returns a map as JSON with sorted keys, or "" if it is empty.
func mapText(values map[string]string) string {
	if len(values) == 0 {
		return ""
	}
	text, err := json.Marshal(values)
	if err != nil {
		return err.Error() // not possible for strings
	}
	return string(text)
}
