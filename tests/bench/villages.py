"""A hundred thousand villages, named as villages are: most alike ("Thôn 1"), some of their own."""

VILLAGES = """
    create temporary table village as
    with commune as (
        select row_number() over (order by c.id) - 1 as n, count(*) over () as communes, c.key
        from admin_unit c join admin_unit_state s on s.unit_key = c.key
        where c.level = 'commune' and c.valid_from = '2025-07-01'
    ), syllable as (
        select array['Nậm','Phiêng','Tân','Bình','Hòa','Phú','Mường','Lùng','Sín','Na','Pa','Khe',
            'Cốc','Tà','Séo','Đồng','Xuân','Thượng','Hạ','Trung','An','Lợi','Thành','Long','Vĩnh',
            'Đông','Tây','Nam','Bắc','Sơn','Thủy','Lâm','Hồng','Quang','Minh','Đức','Hưng','Thịnh',
            'Cát','Giang','Khánh','Ngọc','Kim','Yên','Mai','Liên','Trà','Đại','Tiên','Phong'] as s
    )
    select gen_random_uuid() as id, commune.key as commune_key, made.kind,
           upper(left(made.kind, 1)) || substr(made.kind, 2) || ' ' || case
               when r[1] % 10 < 4 then (1 + r[2] % 17)::text  -- half are numbers
               when r[1] % 10 < 5 then 'số ' || (1 + r[2] % 30)
               else s[1 + r[2] % 50] || ' ' || s[1 + r[3] % 50]
                    || case when r[4] % 3 = 0 then ' ' || s[1 + r[5] % 50] else '' end
                    || case when r[6] % 3 = 0 then ' ' || (1 + r[2] % 9) else '' end
           end as name
    from generate_series(0, 99999) as i
    join commune on commune.n = i % commune.communes
    cross join syllable
    cross join lateral (
        select (array['thôn', 'tổ dân phố', 'bản', 'ấp', 'khóm'])[1 + abs(hashint4(i) % 5)] as kind,
               array(select abs(hashint4(i * 7 + k) % 1000000)
                     from generate_series(1, 6) as k) as r) made;

    insert into admin_unit (id, level, valid_from, created_at, updated_at)
    select id, 'village', '2025-07-01', now(), now() from village;
    insert into admin_unit_state (unit_key, during, name, type, parent_key)
    select u.key, '[2025-07-01,)', v.name, v.kind, v.commune_key
    from village v join admin_unit u using (id);
    select place_villages(array(select u.key from village v join admin_unit u using (id)));
    analyze;
"""
"""As a superuser: village names beside the real communes of today."""
