SELECT p.model, COUNT(*) AS windows, MAX(epoch_ns(w.ended)) AS last_ns
FROM recorded AS w
JOIN processes AS p USING (process_id)
GROUP BY p.model
ORDER BY p.model
