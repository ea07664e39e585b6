-- The rows that moved; those of the same number that they moved into are of another tier, or newer.
DELETE FROM rollups AS w USING moving AS m
WHERE w.process_id = m.process_id AND w.tier = m.tier AND w.number = m.number
