-- Windows that recorded alarms end at are landmarks, whatever else is.
CREATE OR REPLACE TEMP TABLE landmarks AS
SELECT DISTINCT w.process_id, w.number
FROM windows AS w
JOIN processes AS p USING (process_id)
JOIN alarms AS a ON a.model = p.model AND a.profile = p.profile AND a.ended = w.ended
