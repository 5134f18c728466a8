"""The demo, loaded for real: small ones for its rules, one at full scale for the figures."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import asyncpg
import pytest

from api import clock, db
from api.auth.caller import present
from api.auth.loading import load
from api.auth.passwords import verify_secret
from api.auth.permissions import MATRIX, Permission
from api.auth.secrets import Secrets
from api.demo import PASSWORD, Account, DemoError, is_empty, load_demo
from api.demo.accounts import ROLES
from api.embedded import running
from api.models.role_grants import Role
from api.pagination import Cursors

SECRETS = Secrets("a secret of the tests, 32 characters")
TABLES = (
    *("admin_unit", "admin_unit_state", "placement", "principal", "role_grant", "team", "member"),
    *("membership", "household", "support_event", "campaign", "activity", "commendation"),
)


class Database(NamedTuple):
    """A migrated database of its own, as three of its users see it."""

    app: str
    owner: str
    superuser: str

    def ask(self, query: str, *arguments: object) -> Any:
        """Return the one value of a query that no policy narrows."""

        async def go() -> Any:
            connection = await asyncpg.connect(self.superuser)
            try:
                return await connection.fetchval(query, *arguments)
            finally:
                await connection.close()

        return asyncio.run(go())

    def load(self, **options: Any) -> list[Account]:
        return asyncio.run(load_demo(self.app, SECRETS, **options))

    def checksum(self) -> list[str]:
        return [
            self.ask(
                f"select md5(string_agg(r, '' order by r)) "
                f"from (select (to_jsonb(t) - 'secret_hash' - 'xid')::text as r from {table} t)"
            )
            for table in TABLES
        ]


type Fresh = Callable[[str], Database]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    """Makes migrated databases, by name, as copies of one."""
    with running(tmp_path_factory.mktemp("demo"), extra={"fsync": "off"}) as urls:
        asyncio.run(db.migrate(urls.owner))
        superuser = urls.owner.replace("noidai_owner", "postgres")

        def called(name: str) -> Database:
            users = (urls.app, urls.owner, superuser)
            app, owner, any_row = (url.replace("/noidai?", f"/{name}?") for url in users)
            return Database(app, owner, any_row)

        def make(name: str) -> Database:
            called("postgres").ask(f"create database {name} template noidai")
            return called(name)

        yield make


@pytest.fixture(scope="module")
def small(fresh: Fresh) -> Database:
    database = fresh("small")
    database.load(teams=40, events=500)
    return database


@pytest.fixture(scope="module")
def full(fresh: Fresh) -> Database:
    database = fresh("full_scale")
    database.load(owner_url=database.owner)
    return database


def test_the_full_demo_has_the_published_figures(full: Database) -> None:
    assert full.ask("select count(*) from team") == 1562
    assert full.ask("select count(distinct unit_key) from team") == 1562
    assert full.ask("select count(*) from team where founded_on > '2023-12-31'") == 0
    assert full.ask("select count(*) from member") == 7363
    assert full.ask("select count(distinct member_id) from membership") == 7363
    assert full.ask("select count(*) from membership") == 7363
    assert full.ask("select count(*) from household") == 30_000
    assert full.ask("select count(*) from support_event") == 60_000
    assert full.ask("select count(distinct commune_key) from team") == 151
    youth = """
        select 100.0 * avg((is_youth_union_member or $1 - birth_year between 16 and 30)::integer)
        from member
    """
    assert float(full.ask(youth, 2023)) == pytest.approx(40, abs=0.1)
    assert float(full.ask(youth, 2026)) == pytest.approx(40, abs=0.5)
    assert full.ask("select count(*) from team where zalo_group_url is not null") / 1562 > 0.85


def test_the_year_has_campaigns_activities_and_commendations(full: Database) -> None:
    assert full.ask("select count(*) from campaign") == 3
    assert full.ask("select count(*) from activity") == 391
    assert full.ask("select count(*) from commendation") == 40
    assert full.ask("select count(*) from support_event where campaign_id is not null") > 1000
    astray = """
        select count(*) from support_event e join campaign c on c.id = e.campaign_id
        where e.occurred_on not between c.starts_on and c.ends_on
    """
    assert full.ask(astray) == 0
    untold = """
        select count(*) from training_attended t join member m on m.id = t.member_id
        where m.trained_on is null or t.held_on < m.trained_on
    """
    assert full.ask(untold) == 0  # nobody is trained by it who was not anyway
    assert full.ask("select count(*) from training_attended") > 300


def test_the_named_places_have_their_published_teams(full: Database) -> None:
    def teams(level: str, code: str) -> int:
        query = """
            select count(*) from team t
            join placement p on p.unit_key = t.unit_key and p.during @> date '2023-12-31'
            join admin_unit_state s on s.unit_key = p.ancestor_key and s.during @> p.during
            where p.level = $1 and s.code = $2
        """
        return int(full.ask(query, level, code))

    assert teams("commune", "02761") == 17  # Mường Khương
    assert teams("commune", "02905") == 16  # Phố Lu
    assert teams("district", "087") == 207  # Bảo Yên
    assert teams("province", "10") == 1562
    in_bao_yen = """
        from team t
        join membership m on m.team_id = t.id
        join admin_unit_state c on c.unit_key = t.commune_key
        join admin_unit_state d on d.unit_key = c.parent_key and d.code = '087'
    """
    assert full.ask(f"select count(distinct m.member_id) {in_bao_yen}") > 800
    assert full.ask(f"select count(distinct t.commune_key) {in_bao_yen}") == 17
    assert full.ask(f"select count(*) {in_bao_yen} where zalo_group_url is null") == 0
    ban_4_vanh = """
        select count(distinct m.member_id) from admin_unit_state v
        join admin_unit_state c on c.unit_key = v.parent_key and c.code = '02980'
        join membership m on m.unit_key = v.unit_key
        where v.name = 'Bản 4 Vành'
    """
    assert full.ask(ban_4_vanh) == 5


def test_the_year_has_its_seasons(full: Database) -> None:
    def on(condition: str) -> int:
        return int(full.ask(f"select count(*) from support_event where {condition}"))

    assert on("occurred_on not between '2023-01-01' and '2023-12-31'") == 0
    assert on("occurred_on = '2023-10-10'") > 5 * on("occurred_on = '2023-11-14'")
    assert on("occurred_on between '2023-03-01' and '2023-03-31'") > 1.5 * on(
        "occurred_on between '2023-05-01' and '2023-05-31'"
    )
    assert on("status = 'verified'") == pytest.approx(36_000, rel=0.02)
    assert on("outcome = 'completed'") == pytest.approx(42_000, rel=0.02)
    assert on("channel = 'one_stop_desk' and extract(isodow from occurred_on) > 5") == 0
    assert on("service_type = 'HL.DECLARE'") > 0
    assert on("service_type = 'HL.DECLARE' and occurred_on > '2023-10-20'") == 0


def test_events_keep_to_their_team_village_and_time(small: Database) -> None:
    assert small.ask("select count(*) from support_event") == 500
    wrong = """
        select count(*) from support_event e
        join team t on t.id = e.team_id
        left join household h on h.id = e.household_id
        where e.occurred_on < t.founded_on or e.created_at <= e.occurred_at
           or (e.channel = 'household_visit') <> (h.id is not null)
           or h.unit_key <> e.team_unit_key or h.created_at > e.occurred_at
           or not e.member_ids <@ array(select member_id from membership m where m.team_id = t.id)
           or cardinality(e.member_ids) not between 1 and 2
    """
    assert small.ask(wrong) == 0


def test_every_row_is_placed_as_on_its_own_day(small: Database) -> None:
    days = {"team": "founded_on", "membership": "joined_on", "support_event": "occurred_on"}
    days |= {"household": "(t.created_at at time zone 'Asia/Ho_Chi_Minh')::date"}
    for table, day in days.items():
        unplaced = f"""
            select count(*) from {table} t
            join admin_unit u on u.key = t.unit_key
            left join placement c on c.unit_key = t.unit_key and c.level = 'commune'
                 and c.during @> {day}
            left join placement p on p.unit_key = t.unit_key and p.level = 'province'
                 and p.during @> {day}
            where t.unit_id <> u.id or c.ancestor_key is distinct from t.commune_key
               or p.ancestor_key is distinct from t.province_key or t.province_key is null
        """
        assert small.ask(unplaced) == 0, table
    assert small.ask("select count(*) from member") == 189  # 40 x 7,363 / 1,562
    assert small.ask("select count(*) from admin_unit where level = 'village'") == 40


def test_generated_rows_leave_one_entry_a_statement_in_the_audit(small: Database) -> None:
    assert small.ask("select count(*) from audit_entry where action <> 'generate'") == 0
    for resource, table in (("members", "member"), ("support_events", "support_event")):
        told = "select sum((after ->> 'rows')::int) from audit_entry where resource = $1"
        assert small.ask(told, resource) == small.ask(f"select count(*) from {table}")


def test_every_generated_row_is_labelled(small: Database) -> None:
    labels = {
        "admin_unit_state s join admin_unit t on t.key = s.unit_key and t.level = 'village'": (
            "s.name like '% (mẫu)' or s.name = 'Bản 4 Vành'"
        ),
        "principal t": "name like '% (mẫu)'",
        "role_grant t": "true",
        "team t": "decision_number like 'DEMO-%' and zalo_group_url like '%zalo.example/%'",
        "member t": "full_name like '% (mẫu)' and phone like '+8490000%'",
        "household t": "head_name like '% (mẫu)' and address like '% (dữ liệu minh hoạ)'",
        "support_event t": "note = 'Dữ liệu minh hoạ (generated)'",
    }
    for rows, label in labels.items():
        marked = f"t.id::text like '________-____-7de0-8de0-____________' and ({label})"
        assert small.ask(f"select bool_and({marked}) from {rows}"), rows


def test_a_village_moves_on_with_its_commune_or_waits_where_that_was_split(fresh: Fresh) -> None:
    database = fresh("ha_noi")
    accounts = database.load(province="01", teams=300, events=50)
    assert {account.role for account in accounts} == set(ROLES)
    split = """
        select count(*), count(*) filter (where v.parent_key is null),
               count(*) filter (where v.parent_key <> went.ancestor_key)
        from team t
        join admin_unit_state v on v.unit_key = t.unit_key and v.during @> date '2025-07-01'
        left join placement went on went.unit_key = t.commune_key and went.level = 'commune'
             and went.during @> date '2025-07-01'
        where (v.parent_key is null) <> (went.ancestor_key is null)
           or v.parent_key is distinct from went.ancestor_key
    """
    assert database.ask(split) == 0
    waiting = """
        select count(*) from admin_unit_state s join admin_unit u on u.key = s.unit_key
        where u.level = 'village' and s.parent_key is null and s.during @> date '2025-07-01'
    """
    assert 0 < database.ask(waiting) < 300


def test_each_role_has_an_account_that_reaches_its_place(small: Database) -> None:
    async def seen(role: Role) -> tuple[int, int]:
        engine = db.create_engine(small.app)
        try:
            async with db.transaction(engine) as session:
                connection = await session.connection()
                found = await connection.exec_driver_sql(
                    "select id, secret_hash from principal where login = $1", (f"demo.{role}",)
                )
                principal = found.one()
                assert await verify_secret(PASSWORD, principal.secret_hash)
                me = await load(
                    session, principal.id, clock.today(), SECRETS, Cursors(SECRETS.cursors)
                )
                assert [grant.role for grant in me.grants] == [role]
                await present(session, me.reaches)
                teams = await connection.exec_driver_sql("select count(*) from team")
                events = await connection.exec_driver_sql("select count(*) from support_event")
                return teams.scalar_one(), events.scalar_one()
        finally:
            await engine.dispose()

    sees = {role: asyncio.run(seen(role)) for role in ROLES}
    assert sees[Role.province_admin] == sees[Role.auditor] == (40, 500)
    assert sees[Role.team_leader] == sees[Role.team_member]
    assert sees[Role.team_leader][0] == 1
    assert sees[Role.partner] == (0, 0)
    for role in ROLES:
        assert (sees[role][0] > 0) == (Permission.teams_read in MATRIX[role]), role
        assert (sees[role][1] > 0) == (Permission.events_read in MATRIX[role]), role


def test_the_leaders_account_is_the_leader(small: Database) -> None:
    roles = """
        select string_agg(m.role || ' ' || c.code, ', ' order by g.role)
        from role_grant g
        join principal p on p.id = g.principal_id
        join membership m on m.member_id = p.member_id and m.team_id = g.team_id
             and m.unit_key = g.unit_key
        join admin_unit_state c on c.unit_key = m.commune_key
    """
    assert small.ask(roles) == "leader 02761, member 02761"
    wrong = """
        select count(*) from role_grant g
        join admin_unit u on u.key = g.unit_key
        left join placement c on c.unit_key = u.key and c.level = 'commune'
             and c.during @> current_date
        left join placement p on p.unit_key = u.key and p.level = 'province'
             and p.during @> current_date
        where g.commune_key is distinct from c.ancestor_key
           or (g.province_key is distinct from p.ancestor_key and u.level <> 'nation')
    """
    assert small.ask(wrong) == 0


def test_two_loads_are_equal(fresh: Fresh, small: Database) -> None:
    again = fresh("again")
    again.load(teams=40, events=500)
    assert again.checksum() == small.checksum()


def test_a_demo_is_whole_or_absent_and_comes_once(fresh: Fresh) -> None:
    database = fresh("whole")
    before = database.checksum()
    heard: list[float] = []

    def listen(label: str, part: float) -> None:
        heard.append(part)
        if label == "events" and breaks:
            raise KeyboardInterrupt

    breaks = True
    with pytest.raises(KeyboardInterrupt):
        database.load(teams=3, events=5, progress=listen)
    assert database.checksum() == before
    assert asyncio.run(is_empty(database.app))
    breaks = False
    heard.clear()
    database.load(teams=3, events=5, progress=listen)
    assert heard == sorted(heard)
    assert (heard[0], heard[-1]) == (0, 1)
    assert not asyncio.run(is_empty(database.app))
    with pytest.raises(DemoError, match="already"):
        database.load(teams=3, events=5)


def test_two_demos_at_once_make_one(fresh: Fresh) -> None:
    database = fresh("twice")

    async def both() -> list[Any]:
        loads = (load_demo(database.app, SECRETS, teams=3, events=5) for _ in range(2))
        return await asyncio.gather(*loads, return_exceptions=True)

    results = asyncio.run(both())
    assert sorted(type(result).__name__ for result in results) == ["DemoError", "list"]
    assert database.ask("select count(*) from team") == 3


@pytest.mark.parametrize("options", [{"province": "15x"}, {"teams": 0}, {"events": -1}])
def test_an_impossible_demo_is_refused(fresh: Fresh, options: dict[str, Any]) -> None:
    database = fresh(f"impossible_{next(iter(options))}")
    with pytest.raises(DemoError):
        database.load(**{"teams": 3, "events": 5} | options)
    assert asyncio.run(is_empty(database.app))
