SELECT digest
FROM profiles
ORDER BY added, digest
