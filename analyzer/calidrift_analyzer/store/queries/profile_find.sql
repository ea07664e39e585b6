SELECT document
FROM profiles
WHERE digest = $digest
