-- Times are Unix seconds. Sequence numbers and revs are unsigned numbers below 2^63.

CREATE TABLE host (
    id              INTEGER PRIMARY KEY,
    hostname        TEXT    NOT NULL UNIQUE,
    no_ssl          INTEGER NOT NULL DEFAULT 0,
    status          TEXT    NOT NULL DEFAULT 'active',
    status_reason   TEXT,
    status_since    INTEGER NOT NULL,
    trusted         INTEGER NOT NULL DEFAULT 0,
    -- NULL: the relay's default.
    strictness      TEXT,
    -- NULL: never received anything.
    last_seq        INTEGER,
    account_count   INTEGER NOT NULL DEFAULT 0,
    account_limit   INTEGER NOT NULL,
    -- NULL: derived from account_limit.
    per_second      INTEGER,
    per_hour        INTEGER,
    per_day         INTEGER,
    account_limit_alerts_silenced INTEGER NOT NULL DEFAULT 0,
    account_limit_alert_state     TEXT    NOT NULL DEFAULT 'ok',
    account_limit_alert_sent_at   INTEGER,
    last_error      TEXT,
    last_error_at   INTEGER,
    -- Added by an operator: not counted against the limit of new hosts a day.
    by_admin        INTEGER NOT NULL DEFAULT 0,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL
);
CREATE INDEX host_created_at ON host (created_at);

CREATE TABLE account (
    id          INTEGER PRIMARY KEY,
    did         TEXT    NOT NULL UNIQUE,
    host_id     INTEGER NOT NULL,
    -- Status word, and 128 if the host says that the account is active.
    upstream    INTEGER NOT NULL,
    local       INTEGER NOT NULL DEFAULT 0,
    -- The TID as the number which it encodes.
    rev         INTEGER,
    -- SHA-256 of the tree's root and of the commit.
    data        BLOB,
    commit_hash BLOB
);
CREATE INDEX account_host_id ON account (host_id);
CREATE INDEX account_local ON account (local, id) WHERE local <> 0;

CREATE TABLE identity (
    account_id  INTEGER PRIMARY KEY,
    -- Curve tag and point; NULL: the document has no usable key.
    key         BLOB,
    pds         TEXT,
    pds_tls     INTEGER NOT NULL DEFAULT 1,
    handle      TEXT,
    fetched_at  INTEGER NOT NULL
);

CREATE TABLE domain_ban (
    id          INTEGER PRIMARY KEY,
    domain      TEXT    NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL
);

CREATE TABLE setting (
    name        TEXT PRIMARY KEY,
    value       TEXT NOT NULL
) WITHOUT ROWID;

-- log_seq: the account rows are as of this event of the log.
-- emitted_floor: no event above its host's last_seq stands in the log at or below this number.
CREATE TABLE meta (
    name        TEXT PRIMARY KEY,
    value       INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO meta (name, value) VALUES ('log_seq', 0), ('emitted_floor', 0);
