-- status_position is also the position of a deletion or an undeletion, so that followers
-- of statuses need only the user to know its newest row.

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
