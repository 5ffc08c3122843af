-- Position of the last change of each user, by which WatchUsers reads the changed users. It replaces
-- the index of updated_at: the time of the log never decreases, so the order is the same.

-- +goose Up
ALTER TABLE users ADD COLUMN last_activity_id INTEGER NOT NULL DEFAULT 0;
-- +goose StatementBegin
UPDATE users SET last_activity_id = last.position
FROM (
    SELECT user_id, max(position) AS position FROM log
    WHERE action IN ('user.created', 'user.updated', 'user.status_changed', 'user.deleted', 'user.undeleted')
    GROUP BY user_id
) AS last
WHERE users.user_id = last.user_id;
-- +goose StatementEnd
CREATE INDEX users_last_activity ON users (last_activity_id);
DROP INDEX users_updated;
