-- Documents that repeat the verdict before them; the newest of each profile stays, and whatever was
-- recorded since $until.
DELETE FROM assessments
WHERE id IN (
    SELECT id
    FROM assessments
    WHERE epoch_ns(created) < $until
    QUALIFY verdict = LAG(verdict) OVER (PARTITION BY model, profile ORDER BY id)
        AND id < MAX(id) OVER (PARTITION BY model, profile)
)
