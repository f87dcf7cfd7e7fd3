//! The rules that a stored log follows, whatever database it is in: `todo-backend check` looks for what breaks them.

/// What is checked: the rule in words, and a query that returns one row per violation, with a text that names it.
pub type Rule = (&'static str, &'static str);

/// Invariants of the log.
pub const RULES: [Rule; 2] = [
    (
        "revisions of an owner are contiguous up to its head",
        "SELECT 'owner ' || u.id FROM users u LEFT JOIN
             (SELECT owner_id, count(*) AS n, min(revision) AS first, max(revision) AS last FROM changes GROUP BY owner_id) c
             ON c.owner_id = u.id
         WHERE coalesce(c.n, 0) <> u.revision - u.floor
             OR (c.n > 0 AND (c.first <> u.floor + 1 OR c.last <> u.revision))",
    ),
    (
        "versions of a todo are contiguous",
        "SELECT 'todo ' || todo_id FROM changes GROUP BY todo_id HAVING count(*) <> max(version) - min(version) + 1",
    ),
];

/// Hold until there is a trash.
pub const RULES_WITHOUT_TRASH: [Rule; 2] = [
    (
        "a todo is as its last change left it",
        "SELECT 'todo ' || t.id FROM todos t JOIN
             (SELECT todo_id, max(version) AS version FROM changes GROUP BY todo_id) l ON l.todo_id = t.id
             JOIN changes c ON c.todo_id = l.todo_id AND c.version = l.version
         WHERE c.kind = 2 OR c.version <> t.version OR c.owner_id <> t.owner_id OR c.title <> t.title
             OR c.description IS DISTINCT FROM t.description OR c.completed <> t.completed OR c.updated_at <> t.updated_at",
    ),
    (
        "a todo whose last change is not a deletion exists",
        "SELECT 'todo ' || c.todo_id FROM changes c JOIN
             (SELECT todo_id, max(version) AS version FROM changes GROUP BY todo_id) l
             ON l.todo_id = c.todo_id AND l.version = c.version
         WHERE c.kind <> 2 AND NOT EXISTS (SELECT 1 FROM todos t WHERE t.id = c.todo_id)",
    ),
];

/// Hold since there is a trash.
pub const RULES_WITH_TRASH: [Rule; 3] = [
    (
        "a todo is as its last change left it, in the trash or not",
        "SELECT 'todo ' || t.id FROM todos t JOIN
             (SELECT todo_id, max(version) AS version FROM changes GROUP BY todo_id) l ON l.todo_id = t.id
             JOIN changes c ON c.todo_id = l.todo_id AND c.version = l.version
         WHERE (c.kind = 2) <> (t.deleted_uptime IS NOT NULL) OR c.scrubbed OR c.version <> t.version
             OR c.owner_id <> t.owner_id OR c.title <> t.title OR c.description IS DISTINCT FROM t.description
             OR c.completed <> t.completed OR c.updated_at <> t.updated_at OR c.due_at IS DISTINCT FROM t.due_at
             OR c.priority IS DISTINCT FROM t.priority OR c.tags IS DISTINCT FROM t.tags OR c.sort_order IS DISTINCT FROM t.sort_order",
    ),
    (
        "a todo whose last change is not a deletion is there",
        "SELECT 'todo ' || c.todo_id FROM changes c JOIN
             (SELECT todo_id, max(version) AS version FROM changes GROUP BY todo_id) l
             ON l.todo_id = c.todo_id AND l.version = c.version
         WHERE c.kind <> 2
             AND NOT EXISTS (SELECT 1 FROM todos t WHERE t.id = c.todo_id AND t.deleted_uptime IS NULL)",
    ),
    (
        "of an account that was erased, no answers are kept",
        "SELECT 'account ' || u.id FROM users u WHERE u.erased
             AND EXISTS (SELECT 1 FROM idempotency i WHERE i.owner_id = u.id)",
    ),
];

/// Holds once there are accounts with a state.
pub const ACCOUNT_RULE: Rule = (
    "of an account that was erased, nothing is left",
    "SELECT 'account ' || u.id FROM users u WHERE u.erased
         AND (u.state <> 2 OR EXISTS (SELECT 1 FROM todos t WHERE t.owner_id = u.id)
             OR EXISTS (SELECT 1 FROM changes c WHERE c.owner_id = u.id AND NOT c.scrubbed))",
);

/// Holds since changes say what they have replaced.
pub const BEFORE_RULE: Rule = (
    "what was scrubbed does not say what it has replaced",
    "SELECT 'change ' || revision || ' of owner ' || owner_id FROM changes WHERE scrubbed AND before IS NOT NULL",
);

/// Violations listed per rule.
pub const MAX_LISTED: usize = 10;

/// A violation in words.
pub fn violation(rule: &str, what: &str) -> String {
    format!("not so: {rule}: {what}")
}
