-- The switch of each model, as it stands; an empty model is the switch of all.
SELECT model, frozen, actor, epoch_ns(happened) AS at_ns, sentence
FROM freezes
QUALIFY entry = MAX(entry) OVER (PARTITION BY model)
ORDER BY model
