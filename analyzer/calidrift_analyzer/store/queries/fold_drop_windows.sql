DELETE FROM windows AS w USING moving AS m
WHERE m.tier = 0 AND w.process_id = m.process_id AND w.number = m.number
