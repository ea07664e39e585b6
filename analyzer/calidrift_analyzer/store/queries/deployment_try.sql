INSERT INTO deployment_tries
SELECT
    COALESCE(MAX(number), 0) + 1, $entry, $state, make_timestamp_ns($at), $sentence, $output
FROM deployment_tries
