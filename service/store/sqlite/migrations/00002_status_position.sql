-- status_position includes deletions and undeletions, so that status streams can compare it
-- with positions of the log.

-- +goose Up
-- +goose StatementBegin
UPDATE users SET status_position = last.position
FROM (
    SELECT user_id, max(position) AS position FROM log
    WHERE action IN ('user.deleted', 'user.undeleted')
    GROUP BY user_id
) AS last
WHERE users.user_id = last.user_id AND users.status_position < last.position;
-- +goose StatementEnd
