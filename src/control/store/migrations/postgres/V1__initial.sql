-- Times are Unix seconds. Sequence numbers and revs are unsigned numbers below 2^63. Flags are 0 or 1.
-- The same tables as in the folder for SQLite; ids are given out by the program.

CREATE TABLE host (
    id              BIGINT   PRIMARY KEY,
    hostname        TEXT     COLLATE "C" NOT NULL UNIQUE,
    no_ssl          SMALLINT NOT NULL DEFAULT 0,
    status          TEXT     NOT NULL DEFAULT 'active',
    status_reason   TEXT,
    status_since    BIGINT   NOT NULL,
    trusted         SMALLINT NOT NULL DEFAULT 0,
    -- NULL: the relay's default.
    strictness      TEXT,
    -- NULL: never received anything.
    last_seq        BIGINT,
    account_count   BIGINT   NOT NULL DEFAULT 0,
    account_limit   BIGINT   NOT NULL,
    -- NULL: derived from account_limit.
    per_second      BIGINT,
    per_hour        BIGINT,
    per_day         BIGINT,
    account_limit_alerts_silenced SMALLINT NOT NULL DEFAULT 0,
    account_limit_alert_state     TEXT     NOT NULL DEFAULT 'ok',
    account_limit_alert_sent_at   BIGINT,
    last_error      TEXT,
    last_error_at   BIGINT,
    -- Added by an operator: not counted against the limit of new hosts a day.
    by_admin        SMALLINT NOT NULL DEFAULT 0,
    created_at      BIGINT   NOT NULL,
    updated_at      BIGINT   NOT NULL
);
CREATE INDEX host_created_at ON host (created_at);

CREATE TABLE account (
    id          BIGINT   PRIMARY KEY,
    -- The TID as the number which it encodes.
    rev         BIGINT,
    host_id     INTEGER  NOT NULL,
    -- Status word, and 128 if the host says that the account is active.
    upstream    SMALLINT NOT NULL,
    local       SMALLINT NOT NULL DEFAULT 0,
    did         TEXT     COLLATE "C" NOT NULL UNIQUE,
    -- SHA-256 of the tree's root and of the commit.
    data        BYTEA,
    commit_hash BYTEA
) WITH (fillfactor = 90);
CREATE INDEX account_host_id ON account (host_id);
CREATE INDEX account_local ON account (local, id) WHERE local <> 0;

CREATE TABLE identity (
    account_id  BIGINT   PRIMARY KEY,
    -- Curve tag and point; NULL: the document has no usable key.
    key         BYTEA,
    pds         TEXT,
    pds_tls     SMALLINT NOT NULL DEFAULT 1,
    handle      TEXT,
    fetched_at  BIGINT   NOT NULL
);

CREATE TABLE domain_ban (
    id          BIGINT   PRIMARY KEY,
    domain      TEXT     COLLATE "C" NOT NULL UNIQUE,
    created_at  BIGINT   NOT NULL
);

CREATE TABLE setting (
    name        TEXT     COLLATE "C" PRIMARY KEY,
    value       TEXT     NOT NULL
);

-- log_seq: the account rows are as of this event of the log.
-- emitted_floor: no event above its host's last_seq stands in the log at or below this number.
CREATE TABLE meta (
    name        TEXT     COLLATE "C" PRIMARY KEY,
    value       BIGINT   NOT NULL
);
INSERT INTO meta (name, value) VALUES ('log_seq', 0), ('emitted_floor', 0);
