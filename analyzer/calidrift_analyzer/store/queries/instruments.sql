SELECT DISTINCT instrument
FROM processes
WHERE model = $model AND profile = $profile
ORDER BY instrument
