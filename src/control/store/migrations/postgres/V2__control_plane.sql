-- What the host machine remembers over a restart.
ALTER TABLE host ADD COLUMN did TEXT;
-- When the status ends by itself (a quarantine); NULL: never.
ALTER TABLE host ADD COLUMN status_until BIGINT;
ALTER TABLE host ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;
ALTER TABLE host ADD COLUMN next_attempt_at BIGINT;
ALTER TABLE host ADD COLUMN quarantine_count BIGINT NOT NULL DEFAULT 0;
-- Well-formed events since the host was last found at fault.
ALTER TABLE host ADD COLUMN well_formed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE host ADD COLUMN strictness_since BIGINT;
-- No event of the host above its last_seq stands in the log at or below this number.
ALTER TABLE host ADD COLUMN log_floor BIGINT NOT NULL DEFAULT 0;

ALTER TABLE account ADD COLUMN created_at BIGINT NOT NULL DEFAULT 0;
-- What consumers were last told of the account, coded as upstream; NULL: nothing yet.
ALTER TABLE account ADD COLUMN announced SMALLINT;
-- Accounts above their host's limit, oldest first.
CREATE INDEX account_throttled ON account (host_id, id) WHERE local = 2;

-- Documents of DIDs that have no account here yet, taken from an export of the directory.
CREATE TABLE directory (
    did         TEXT COLLATE "C" PRIMARY KEY,
    key         BYTEA,
    pds         TEXT,
    pds_tls     SMALLINT NOT NULL DEFAULT 1,
    handle      TEXT,
    fetched_at  BIGINT NOT NULL
);

CREATE TABLE audit (
    id          BIGINT PRIMARY KEY,
    at          BIGINT NOT NULL,
    -- Who: which key, or which part of the relay itself.
    actor       TEXT    NOT NULL,
    remote      TEXT    NOT NULL,
    action      TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    detail      TEXT    NOT NULL,
    outcome     TEXT    NOT NULL
);

CREATE TABLE trusted_domain (
    domain      TEXT COLLATE "C" PRIMARY KEY,
    created_at  BIGINT NOT NULL
);

-- Changes not yet passed on to a sibling relay, in order.
CREATE TABLE sibling_queue (
    id          BIGINT PRIMARY KEY,
    sibling     TEXT COLLATE "C" NOT NULL,
    method      TEXT    NOT NULL,
    path        TEXT    NOT NULL,
    body        TEXT    NOT NULL,
    via         TEXT    NOT NULL,
    created_at  BIGINT NOT NULL,
    attempts    BIGINT NOT NULL DEFAULT 0,
    next_at     BIGINT NOT NULL DEFAULT 0,
    last_error  TEXT
);
CREATE INDEX sibling_queue_order ON sibling_queue (sibling, id);

CREATE TABLE sibling_state (
    sibling       TEXT COLLATE "C" PRIMARY KEY,
    delivered     BIGINT NOT NULL DEFAULT 0,
    refused       BIGINT NOT NULL DEFAULT 0,
    last_ok_at    BIGINT,
    last_error    TEXT,
    last_error_at BIGINT
);

-- The last change of each relay where changes began that was taken.
CREATE TABLE sibling_origin (
    origin        BIGINT PRIMARY KEY,
    number        BIGINT NOT NULL
);

-- Collections in which accounts have made records since the relay has known them.
CREATE TABLE collection_name (
    id          BIGINT PRIMARY KEY,
    nsid        TEXT COLLATE "C" NOT NULL UNIQUE
);
CREATE TABLE collection (
    name_id     INTEGER NOT NULL,
    account_id  BIGINT NOT NULL,
    PRIMARY KEY (name_id, account_id)
);

-- Relays whose hosts are looked through again and again.
CREATE TABLE discovery (
    relay         TEXT COLLATE "C" PRIMARY KEY,
    last_at       BIGINT NOT NULL,
    hosts_seen    BIGINT NOT NULL DEFAULT 0,
    hosts_added   BIGINT NOT NULL DEFAULT 0,
    last_error    TEXT
);

-- Hosts that were refused, and are not tried again before a time.
CREATE TABLE refused_host (
    hostname    TEXT COLLATE "C" PRIMARY KEY,
    reason      TEXT    NOT NULL,
    refused_at  BIGINT NOT NULL,
    retry_at    BIGINT NOT NULL,
    times       BIGINT NOT NULL DEFAULT 1
);
