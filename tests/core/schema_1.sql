BEGIN TRANSACTION;
CREATE TABLE documents (
	n INTEGER NOT NULL, 
	kind VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	version INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (n), 
	UNIQUE (kind, "key", version)
);
INSERT INTO "documents" VALUES(1,'loop','1',1,'2026-11-22 09:19:13.612699','{"status": "running"}');
INSERT INTO "documents" VALUES(2,'loop','1',2,'2026-11-22 09:19:13.615426','{"status": "finished"}');
CREATE TABLE experience_sources (
	n INTEGER NOT NULL, 
	experience_id VARCHAR NOT NULL, 
	version INTEGER NOT NULL, 
	trajectory VARCHAR NOT NULL, 
	task VARCHAR NOT NULL, 
	step INTEGER, 
	PRIMARY KEY (n), 
	FOREIGN KEY(experience_id, version) REFERENCES experiences (id, version)
);
INSERT INTO "experience_sources" VALUES(1,'exp_000000000000000a',1,'trj_0000000000000001','toy/login@1',0);
INSERT INTO "experience_sources" VALUES(2,'exp_000000000000000b',1,'trj_0000000000000001','toy/login@1',NULL);
INSERT INTO "experience_sources" VALUES(3,'exp_000000000000000b',1,'trj_0000000000000002','toy/search@2',0);
INSERT INTO "experience_sources" VALUES(4,'exp_000000000000000c',1,'trj_0000000000000000','toy/search@0',0);
INSERT INTO "experience_sources" VALUES(5,'exp_000000000000000a',2,'trj_0000000000000001','toy/login@1',0);
INSERT INTO "experience_sources" VALUES(6,'exp_000000000000000a',2,'trj_0000000000000002','toy/search@2',0);
CREATE TABLE experiences (
	n INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	version INTEGER NOT NULL, 
	kind VARCHAR NOT NULL, 
	environment VARCHAR NOT NULL, 
	family VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	created DATETIME NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (n), 
	UNIQUE (id, version)
);
INSERT INTO "experiences" VALUES(1,'exp_000000000000000a',1,'skill','toy','login','candidate','2026-11-22 09:19:13.572405','{"id":"exp_000000000000000a","version":1,"environment":"toy","family":"login","goal":"Log in as \"{text}\".","content":{"kind":"skill","preconditions":["The page says \"naïve\t☃ \\ \u0007\"."],"procedure":["click(button ''OK'')"],"verification":[]},"sources":[{"trajectory":"trj_0000000000000001","task":"toy/login@1","steps":[0]}],"status":"candidate","author":"rules (scripted)","verbatim":"Log in as \"Zoë 1\".","created":"2026-11-22T09:19:13.572405Z"}');
INSERT INTO "experiences" VALUES(2,'exp_000000000000000b',1,'sticker','toy','login','active','2026-11-22 09:19:13.572474','{"id":"exp_000000000000000b","version":1,"environment":"toy","family":"login","goal":"Log in as \"{text}\".","content":{"kind":"sticker","conditions":["The goal names 1 text."],"question":"Which actions?"},"sources":[{"trajectory":"trj_0000000000000001","task":"toy/login@1","steps":[]},{"trajectory":"trj_0000000000000002","task":"toy/search@2","steps":[0]}],"status":"active","author":"rules (scripted)","verbatim":"","created":"2026-11-22T09:19:13.572474Z"}');
INSERT INTO "experiences" VALUES(3,'exp_000000000000000c',1,'guardrail','toy','login','retired','2026-11-22 09:19:13.572529','{"id":"exp_000000000000000c","version":1,"environment":"toy","family":"login","goal":"Log in as \"{text}\".","content":{"kind":"guardrail","trigger":["button ''OK''"],"root_cause":"Too early.","forbidden":"click(button ''OK'')","remedy":"Fill first."},"sources":[{"trajectory":"trj_0000000000000000","task":"toy/search@0","steps":[0]}],"status":"retired","author":"rules (scripted)","verbatim":"","created":"2026-11-22T09:19:13.572529Z"}');
INSERT INTO "experiences" VALUES(4,'exp_000000000000000a',2,'skill','toy','login','active','2026-11-22 09:19:13.572405','{"id":"exp_000000000000000a","version":2,"environment":"toy","family":"login","goal":"Log in as \"{text}\".","content":{"kind":"skill","preconditions":["The page says \"naïve\t☃ \\ \u0007\"."],"procedure":["click(button ''OK'')"],"verification":[]},"sources":[{"trajectory":"trj_0000000000000001","task":"toy/login@1","steps":[0]},{"trajectory":"trj_0000000000000002","task":"toy/search@2","steps":[0]}],"status":"active","author":"rules (scripted)","verbatim":"Log in as \"Zoë 1\".","created":"2026-11-22T09:19:13.572405Z"}');
CREATE TABLE meta (
	"key" VARCHAR NOT NULL, 
	value VARCHAR NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('schema_version','1');
CREATE TABLE metrics (
	n INTEGER NOT NULL, 
	run VARCHAR NOT NULL, 
	step INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	value FLOAT, 
	PRIMARY KEY (n), 
	UNIQUE (run, step, name)
);
INSERT INTO "metrics" VALUES(1,'1/0-sft',1,'loss',2.0);
INSERT INTO "metrics" VALUES(2,'1/0-sft',1,'bad',NULL);
CREATE TABLE promotions (
	n INTEGER NOT NULL, 
	student VARCHAR NOT NULL, 
	reason TEXT NOT NULL, 
	evidence TEXT NOT NULL, 
	created DATETIME NOT NULL, 
	PRIMARY KEY (n), 
	FOREIGN KEY(student) REFERENCES students (id)
);
INSERT INTO "promotions" VALUES(1,'stu_0000000000000001','promoted: it is better','{"gain": 0.5}','2026-11-22 09:19:13.606361');
CREATE TABLE students (
	n INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	label VARCHAR NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (n), 
	UNIQUE (id), 
	UNIQUE (number), 
	UNIQUE (label)
);
INSERT INTO "students" VALUES(1,'stu_0000000000000000',0,'student@0','{"id":"stu_0000000000000000","number":0,"stage":"base","cycle":0,"parent":null,"weights":"tiny","digest":"","trajectories":[],"experiences":[],"settings":{},"created":"2026-11-22T09:19:13.598858Z"}');
INSERT INTO "students" VALUES(2,'stu_0000000000000001',1,'student@1','{"id":"stu_0000000000000001","number":1,"stage":"sft","cycle":1,"parent":"stu_0000000000000000","weights":"students/1","digest":"d","trajectories":["trj_0000000000000001","trj_0000000000000002"],"experiences":[],"settings":{},"created":"2026-11-22T09:19:13.598890Z"}');
CREATE TABLE trajectories (
	n INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	cycle INTEGER NOT NULL, 
	arm VARCHAR NOT NULL, 
	environment VARCHAR NOT NULL, 
	family VARCHAR NOT NULL, 
	seed INTEGER NOT NULL, 
	split VARCHAR NOT NULL, 
	policy VARCHAR NOT NULL, 
	memory BOOLEAN NOT NULL, 
	success BOOLEAN NOT NULL, 
	reward FLOAT, 
	ending VARCHAR NOT NULL, 
	steps INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (n), 
	UNIQUE (id), 
	UNIQUE ("key")
);
INSERT INTO "trajectories" VALUES(1,'trj_0000000000000000','demonstrations/0',1,'demonstrations','toy','search',0,'train','expert/toy (scripted)',0,0,0.0,'failed',1,'2026-11-22 09:19:13.526789','{"version":1,"id":"trj_0000000000000000","task":{"environment":"toy","family":"search","seed":0,"split":"train"},"goal":"Log in as \"Zoë 0\".","system":"You act in a toy.","tools":[],"policy":"expert/toy (scripted)","memory":false,"shown":[],"steps":[{"observation":"[r1] textbox \"Username\"\n[r2] button \"OK\"","notes":[],"reply":"Now.\nclick(\"r2\")","thought":"Now.","action":"click(\"r2\")","meaning":"click(button ''OK'')","diagnosis":{"cause":"no_effect","evidence":"","added":[],"removed":[]},"after":"Welcome.","reward":0.0,"credit":0.0,"blocked_by":null,"tokens":null}],"reward":0.0,"ending":"failed","error":"","created":"2026-11-22T09:19:13.526789Z","seconds":0.0}');
INSERT INTO "trajectories" VALUES(2,'trj_0000000000000001','demonstrations/1',1,'demonstrations','toy','login',1,'train','expert/toy (scripted)',0,1,1.0,'solved',1,'2026-11-22 09:19:13.566132','{"version":1,"id":"trj_0000000000000001","task":{"environment":"toy","family":"login","seed":1,"split":"train"},"goal":"Log in as \"Zoë 1\".","system":"You act in a toy.","tools":[],"policy":"expert/toy (scripted)","memory":false,"shown":[],"steps":[{"observation":"[r1] textbox \"Username\"\n[r2] button \"OK\"","notes":[],"reply":"Now.\nclick(\"r2\")","thought":"Now.","action":"click(\"r2\")","meaning":"click(button ''OK'')","diagnosis":{"cause":"solved","evidence":"","added":[],"removed":[]},"after":"Welcome.","reward":1.0,"credit":0.0,"blocked_by":null,"tokens":null}],"reward":1.0,"ending":"solved","error":"","created":"2026-11-22T09:19:13.566132Z","seconds":0.0}');
INSERT INTO "trajectories" VALUES(3,'trj_0000000000000002','demonstrations/2',1,'demonstrations','toy','search',2,'train','expert/toy (scripted)',0,1,1.0,'solved',1,'2026-11-22 09:19:13.568339','{"version":1,"id":"trj_0000000000000002","task":{"environment":"toy","family":"search","seed":2,"split":"train"},"goal":"Log in as \"Zoë 2\".","system":"You act in a toy.","tools":[],"policy":"expert/toy (scripted)","memory":false,"shown":[],"steps":[{"observation":"[r1] textbox \"Username\"\n[r2] button \"OK\"","notes":[],"reply":"Now.\nclick(\"r2\")","thought":"Now.","action":"click(\"r2\")","meaning":"click(button ''OK'')","diagnosis":{"cause":"solved","evidence":"","added":[],"removed":[]},"after":"Welcome.","reward":1.0,"credit":0.0,"blocked_by":null,"tokens":null}],"reward":1.0,"ending":"solved","error":"","created":"2026-11-22T09:19:13.568339Z","seconds":0.0}');
INSERT INTO "trajectories" VALUES(4,'trj_0000000000000003','demonstrations/3',1,'demonstrations','toy','login',3,'train','expert/toy (scripted)',0,0,0.0,'failed',1,'2026-11-22 09:19:13.570318','{"version":1,"id":"trj_0000000000000003","task":{"environment":"toy","family":"login","seed":3,"split":"train"},"goal":"Log in as \"Zoë 3\".","system":"You act in a toy.","tools":[],"policy":"expert/toy (scripted)","memory":false,"shown":[],"steps":[{"observation":"[r1] textbox \"Username\"\n[r2] button \"OK\"","notes":[],"reply":"Now.\nclick(\"r2\")","thought":"Now.","action":"click(\"r2\")","meaning":"click(button ''OK'')","diagnosis":{"cause":"no_effect","evidence":"","added":[],"removed":[]},"after":"Welcome.","reward":0.0,"credit":0.0,"blocked_by":null,"tokens":null}],"reward":0.0,"ending":"failed","error":"","created":"2026-11-22T09:19:13.570318Z","seconds":0.0}');
INSERT INTO "trajectories" VALUES(5,'trj_0000000000000004','1/eval/0-before-on/4',1,'1/eval/0-before-on','toy','search',4,'validation','expert/toy (scripted)',1,1,1.0,'solved',1,'2026-11-22 09:19:13.582970','{"version":1,"id":"trj_0000000000000004","task":{"environment":"toy","family":"search","seed":4,"split":"validation"},"goal":"Log in as \"Zoë 4\".","system":"You act in a toy.","tools":[],"policy":"expert/toy (scripted)","memory":true,"shown":[{"id":"exp_000000000000000a","version":2,"text":"Skill exp_000000000000000a"},{"id":"exp_000000000000000b","version":1,"text":"Skill exp_000000000000000b"}],"steps":[{"observation":"[r1] textbox \"Username\"\n[r2] button \"OK\"","notes":[],"reply":"Now.\nclick(\"r2\")","thought":"Now.","action":"click(\"r2\")","meaning":"click(button ''OK'')","diagnosis":{"cause":"solved","evidence":"","added":[],"removed":[]},"after":"Welcome.","reward":1.0,"credit":0.0,"blocked_by":null,"tokens":null}],"reward":1.0,"ending":"solved","error":"","created":"2026-11-22T09:19:13.582970Z","seconds":0.0}');
INSERT INTO "trajectories" VALUES(6,'trj_0000000000000005','1/eval/0-before-on/5',1,'1/eval/0-before-on','toy','login',5,'validation','expert/toy (scripted)',1,0,NULL,'failed',1,'2026-11-22 09:19:13.584875','{"version":1,"id":"trj_0000000000000005","task":{"environment":"toy","family":"login","seed":5,"split":"validation"},"goal":"Log in as \"Zoë 5\".","system":"You act in a toy.","tools":[],"policy":"expert/toy (scripted)","memory":true,"shown":[{"id":"exp_000000000000000a","version":1,"text":"Skill exp_000000000000000a"}],"steps":[{"observation":"[r1] textbox \"Username\"\n[r2] button \"OK\"","notes":[],"reply":"Now.\nclick(\"r2\")","thought":"Now.","action":"click(\"r2\")","meaning":"click(button ''OK'')","diagnosis":{"cause":"no_effect","evidence":"","added":[],"removed":[]},"after":"Welcome.","reward":0.0,"credit":0.0,"blocked_by":null,"tokens":null}],"reward":"NaN","ending":"failed","error":"","created":"2026-11-22T09:19:13.584875Z","seconds":0.0}');
INSERT INTO "trajectories" VALUES(7,'trj_0000000000000006','1/eval/0-before-on/6',1,'1/eval/0-before-on','toy','search',6,'validation','expert/toy (scripted)',1,0,0.0,'environment_error',1,'2026-11-22 09:19:13.586754','{"version":1,"id":"trj_0000000000000006","task":{"environment":"toy","family":"search","seed":6,"split":"validation"},"goal":"Log in as \"Zoë 6\".","system":"You act in a toy.","tools":[],"policy":"expert/toy (scripted)","memory":true,"shown":[{"id":"exp_000000000000000a","version":2,"text":"Skill exp_000000000000000a"}],"steps":[{"observation":"[r1] textbox \"Username\"\n[r2] button \"OK\"","notes":[],"reply":"Now.\nclick(\"r2\")","thought":"Now.","action":"click(\"r2\")","meaning":"click(button ''OK'')","diagnosis":{"cause":"no_effect","evidence":"","added":[],"removed":[]},"after":"Welcome.","reward":0.0,"credit":0.0,"blocked_by":null,"tokens":null}],"reward":0.0,"ending":"environment_error","error":"","created":"2026-11-22T09:19:13.586754Z","seconds":0.0}');
INSERT INTO "trajectories" VALUES(8,'trj_0000000000000007','1/eval/0-before-on/7',1,'1/eval/0-before-on','toy','login',7,'validation','expert/toy (scripted)',1,1,1.0,'solved',1,'2026-11-22 09:19:13.588466','{"version":1,"id":"trj_0000000000000007","task":{"environment":"toy","family":"login","seed":7,"split":"validation"},"goal":"Log in as \"Zoë 7\".","system":"You act in a toy.","tools":[],"policy":"expert/toy (scripted)","memory":true,"shown":[],"steps":[{"observation":"[r1] textbox \"Username\"\n[r2] button \"OK\"","notes":[],"reply":"Now.\nclick(\"r2\")","thought":"Now.","action":"click(\"r2\")","meaning":"click(button ''OK'')","diagnosis":{"cause":"solved","evidence":"","added":[],"removed":[]},"after":"Welcome.","reward":1.0,"credit":0.0,"blocked_by":null,"tokens":null}],"reward":1.0,"ending":"solved","error":"","created":"2026-11-22T09:19:13.588466Z","seconds":0.0}');
CREATE TABLE verdicts (
	n INTEGER NOT NULL, 
	trajectory VARCHAR NOT NULL, 
	judge VARCHAR NOT NULL, 
	successful BOOLEAN NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (n), 
	UNIQUE (trajectory, judge), 
	FOREIGN KEY(trajectory) REFERENCES trajectories (id)
);
INSERT INTO "verdicts" VALUES(1,'trj_0000000000000000','expert/judge (scripted)',0,'{"trajectory":"trj_0000000000000000","judge":"expert/judge (scripted)","successful":false,"reason":"It says so.","cited":[],"votes":[],"side_effects":false,"looped":false,"optimality":0,"hinted":false}');
INSERT INTO "verdicts" VALUES(2,'trj_0000000000000001','expert/judge (scripted)',1,'{"trajectory":"trj_0000000000000001","judge":"expert/judge (scripted)","successful":true,"reason":"It says so.","cited":[],"votes":[],"side_effects":false,"looped":false,"optimality":0,"hinted":false}');
INSERT INTO "verdicts" VALUES(3,'trj_0000000000000002','expert/judge (scripted)',1,'{"trajectory":"trj_0000000000000002","judge":"expert/judge (scripted)","successful":true,"reason":"It says so.","cited":[],"votes":[],"side_effects":false,"looped":false,"optimality":0,"hinted":false}');
INSERT INTO "verdicts" VALUES(4,'trj_0000000000000003','expert/judge (scripted)',0,'{"trajectory":"trj_0000000000000003","judge":"expert/judge (scripted)","successful":false,"reason":"It says so.","cited":[],"votes":[],"side_effects":false,"looped":false,"optimality":0,"hinted":false}');
CREATE INDEX ix_trajectories_family ON trajectories (family);
CREATE INDEX ix_experience_sources_task ON experience_sources (task);
CREATE INDEX ix_experience_sources_trajectory ON experience_sources (trajectory);
COMMIT;
