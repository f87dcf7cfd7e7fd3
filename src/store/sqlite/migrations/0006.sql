-- Version 6 of the schema: changes can be undone.

-- What the change has replaced: a JSON object of the values that the changed fields had and, as "versions", the
-- field_versions that the todo had. NULL: nothing, if it is a creation; else not known.
ALTER TABLE changes ADD COLUMN before TEXT;

-- In todos and in changes, field_versions also has the version that last deleted or restored the todo, as its eighth
-- number; a list that is shorter stays right. Behind a semicolon, it can have eight more: the versions that these are from,
-- if some that changed them last were undone.
