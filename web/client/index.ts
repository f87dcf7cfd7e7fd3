// A client of the service for pages and programs: README.md.
export { caller, explained, type Answer, type Call, type Schemas, type Token } from './api';
export { follow } from './follow.mjs';
export { differences, rest, type Edit, type Fields, type Id, type Problem, type Shown } from './queue';
export { checked, LoggedOut, Refused, Session } from './session';
export { type Locks, type Store } from './store';
export { Todos, type Delivery, type Options, type Status } from './todos';
