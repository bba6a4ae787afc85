require('tsx/cjs');
const { PolicyPack } = require('@pulumi/policy');
const { policies } = require('./policies.ts');

new PolicyPack('branchloans', { enforcementLevel: 'mandatory', policies });
