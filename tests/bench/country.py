"""A country at work: villages and teams of both eras, and as many events as are asked for."""

from typing import Final

VILLAGES: Final = """
    create temporary table village as
    select gen_random_uuid() as id, gen_random_uuid() as team_id, c.key as before,
           coalesce(x.heirs[1 + n % cardinality(x.heirs)], c.key) as after, n,
           row_number() over () - 1 as number
    from admin_unit c
    cross join generate_series(1, 9) as n
    left join lateral (
        select array_agg(successor_key order by successor_key) as heirs
        from unit_succession where predecessor_key = c.key) x on true
    where c.level = 'commune' and c.valid_to = '2025-06-30';

    insert into admin_unit (id, level, created_at, updated_at)
    select id, 'village', now(), now() from village;
    insert into admin_unit_state (unit_key, during, name, type, parent_key)
    select u.key, during, 'Thôn ' || n, 'thôn', parent
    from village v join admin_unit u using (id)
    cross join lateral (values (daterange(null, '2025-07-01'), before),
                               (daterange('2025-07-01', null), after)) as s (during, parent);
    select place_villages(array(select u.key from village v join admin_unit u using (id)));

    create table bench_village as
    select v.number, v.team_id, u.id as unit_id, u.key as unit_key, v.before, v.after,
           pb.ancestor_key as province_before, pa.ancestor_key as province_after
    from village v join admin_unit u using (id)
    join placement pb on pb.unit_key = v.before and pb.level = 'province'
         and pb.during @> date '2025-06-30'
    join placement pa on pa.unit_key = v.after and pa.level = 'province'
         and pa.during @> date '2025-07-01';
    create unique index on bench_village (number);
    insert into team (id, version, created_at, updated_at, unit_id, unit_key, commune_key,
                      province_key, name, kind, founded_on, external_ids)
    select team_id, 1, now(), now(), unit_id, unit_key, before, province_before, 'Tổ ' || number,
           'community_team', date '2022-03-01' + (number % 600)::integer, '{}'
    from bench_village;

    insert into member (id, version, created_at, updated_at, full_name, birth_year, gender,
                        is_youth_union_member, trained_on, external_ids)
    select md5(number || ' of ' || n)::uuid, 1, now(), now(), 'Người ' || n,
           1960 + ((number * 7 + n * 11) % 50)::integer, 'unstated', n = 4,
           case when n % 3 = 0 then date '2024-01-01' + (number % 700)::integer end, '{}'
    from bench_village cross join generate_series(0, 8) as n;
    insert into membership (team_id, member_id, joined_on, left_on, role, unit_id, unit_key,
                            commune_key, province_key)
    select t.id, md5(v.number || ' of ' || n)::uuid, t.founded_on + (n * 30)::integer,
           case when (v.number + n) % 7 = 0 then t.founded_on + (n * 30 + 500)::integer end,
           case when n = 0 then 'leader' else 'member' end, t.unit_id, t.unit_key, t.commune_key,
           t.province_key
    from bench_village v
    cross join generate_series(0, 8) as n
    cross join lateral (  -- one in twenty is in the next village's team too
        values (v.number), (case when (v.number * 9 + n) % 20 = 5 then v.number + 1 end)
    ) at (number)
    join bench_village w on w.number = at.number
    join team t on t.id = w.team_id;

    create function bench_household(village bigint, n bigint) returns uuid
    language sql immutable parallel safe as $$ select md5(village || ' ' || n)::uuid $$;
    insert into household (id, version, created_at, updated_at, unit_id, unit_key, commune_key,
                           province_key, head_name, is_business, external_ids)
    select bench_household(number, n), 1, timestamptz '2024-10-01', now(), unit_id, unit_key, after,
           province_after, 'Hộ ' || n, false, '{}'
    from bench_village cross join generate_series(0, 19) as n;
    analyze;
"""
"""As a superuser: in every commune of before the reform nine villages, with a team of nine and
twenty households each."""

EVENTS: Final = """
    insert into support_event (id, version, created_at, updated_at, unit_id, unit_key, commune_key,
        province_key, team_id, team_unit_key, team_commune_key, member_ids, service_type,
        occurred_at, quantity, outcome, mode, channel, status, household_id, beneficiary_hash,
        external_ids)
    select uuidv7(), 1, now(), now(), v.unit_id, v.unit_key,
           case when at.new then v.after else v.before end,
           case when at.new then v.province_after else v.province_before end,
           v.team_id, v.unit_key, v.before, '{}', s.codes[1 + r[2] % 20], at.moment, 1 + r[3] % 3,
           (array['completed', 'guided', 'attempted', 'referred'])[1 + r[4] % 4], 'assisted',
           (array['household_visit', 'market', 'one_stop_desk', 'meeting', 'cooperative',
                  'campaign_day', 'training', 'online'])[1 + r[5] % 8],
           (array['submitted', 'submitted', 'verified', 'voided'])[1 + r[6] % 4],
           case when r[8] % 10 < 6 then bench_household(v.number, r[8] / 10 % 20) end,
           case when r[9] % 10 < 3  -- one in five from the next village
                then sha256(((v.number + (r[9] / 10 % 5) / 4) || ' ' || r[9] / 50 % 60)::bytea) end,
           '{}'
    from (select array_agg(code order by code) as codes from service_type) s
    cross join generate_series($1::bigint, $2::bigint) as i
    cross join lateral (
        select array(select (abs(hashint8extended(i, k)) % 1000000000)::integer
                     from generate_series(1, 9) as k) as r) dice
    cross join lateral (
        select moment, moment >= timestamptz '2025-07-01 00:00+07' as new
        from (select timestamptz '2024-11-01 00:00+07'
                     + make_interval(secs => (r[7] % 61344000))) m (moment)) at
    join bench_village v on v.number = r[1] % (select count(*) from bench_village)
"""
"""As a superuser, without triggers: events `$1` to `$2`, over two years around the reform.

Three in five are of a household, three in ten of a beneficiary."""
