SELECT DISTINCT model, profile, instrument
FROM processes
ORDER BY model, profile, instrument
