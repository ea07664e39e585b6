-- Records that lie inside a later rollup which has all windows of its span already.
SELECT process_id, number
FROM recorded
QUALIFY number >= MIN(
    CASE
        WHEN first < number AND coarse = 0 AND windows = number - first + 1 THEN first
    END
) OVER (
    PARTITION BY process_id
    ORDER BY number
    ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
)
ORDER BY process_id, number
